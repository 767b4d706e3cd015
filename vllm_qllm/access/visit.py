# SPDX-License-Identifier: Apache-2.0
"""One HTTP request of a tenant: what it may do, and what it holds until it is answered."""

from __future__ import annotations

from typing import Any

from vllm_qllm.access.gate import Gate
from vllm_qllm.access.grant import grant
from vllm_qllm.access.limiter import Claim
from vllm_qllm.access.refusal import Refusal
from vllm_qllm.access.roster import Roster
from vllm_qllm.access.tenant import Tenant

# Where a request's ASGI scope holds its visit.
SCOPE_KEY = "vllm_qllm.visit"


class Visit:
    """Made when a key was recognised; closed when the answer has been sent, or nobody wants it.

    Args:
        gate: of this process.
        roster: as it was when the request came; it holds until the request is answered.
        name: of the tenant.
        path: of the request.
        request_id: for the audit line and the answer.

    Attributes:
        refusal: what the handler was told to answer, None when it is to serve.
    """

    def __init__(self, gate: Gate, roster: Roster, name: str, path: str, request_id: str) -> None:
        self._gate, self._roster, self.name = gate, roster, name
        self.path, self.request_id = path, request_id
        self._tenant: Tenant = roster.tenants[name]
        self._claim: Claim | None = None
        self._priority: int | None = None
        self.refusal: Refusal | None = None

    @property
    def priority(self) -> int:
        """The number that was granted; asking before :meth:`ask` is a mistake of this package."""
        if self._priority is None:
            raise RuntimeError("a request reached the engine without having been admitted")
        return self._priority

    @property
    def is_operator(self) -> bool:
        """Whether the tenant may use what changes or stops the server."""
        return self._tenant.operator

    def ask(self, asked: int | None, weight: int, *, may_lower: bool = True) -> int | Refusal:
        """The priority that the request gets, or why it gets none; the first answer stands.

        Args:
            asked: the priority that it asks for; None when it leaves the choice to the server.
            weight: how many sequences it asks for.
            may_lower: False where vLLM runs the request with the number asked for in any case.
        """
        if self._priority is not None:
            return self._priority
        granted = grant(self._gate.config, self._tenant, asked, may_lower=may_lower)
        if not isinstance(granted, Refusal):
            cls = self._class_of(granted)
            claim = self._gate.limiter.admit(
                self.name,
                cls,
                weight,
                self._tenant.classes[cls],
                self._roster.max_in_flight.get(cls),
            )
            if isinstance(claim, Claim):
                self._claim, self._priority = claim, granted
                return granted
            granted = claim
        return self.refuse(granted)

    def refuse(self, refusal: Refusal) -> Refusal:
        """Count and write down a refusal, once."""
        if self.refusal is None:
            self.refusal = refusal
            self._gate.refused(self.name, refusal, self.path, self.request_id)
        return self.refusal

    def close(self) -> None:
        """Give back what the request holds."""
        if self._claim is not None:
            self._gate.limiter.release(self._claim)
            self._claim = None

    def _class_of(self, priority: int) -> str:
        config = self._gate.config
        return config.classes[config.rank(priority)].name


def visit_of(raw_request: Any) -> Visit | None:
    """The visit of a request of FastAPI, None when it came by another way than the middleware."""
    visit = raw_request.scope.get(SCOPE_KEY)
    return visit if isinstance(visit, Visit) else None
