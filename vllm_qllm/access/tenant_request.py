# SPDX-License-Identifier: Apache-2.0
"""One HTTP request of a tenant: what it may do, and what it holds until it is answered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.grant import grant
from vllm_qllm.access.limiter import Claim
from vllm_qllm.access.refusal import Refusal
from vllm_qllm.access.tenant import Tenant
from vllm_qllm.access.tenants_config import TenantsConfig

# Where a request's ASGI scope holds this.
SCOPE_KEY = "vllm_qllm.tenant_request"


class TenantRequest:
    """Made when a key was recognised; closed when the answer has been sent, or the client has gone.

    Args:
        access: of this process.
        tenants_config: as it was when the request came; it holds until the request is answered.
        name: of the tenant.
        route: to which the request goes (:func:`vllm_qllm.access.route.route_of`).
        request_id: for the audit line and the answer.

    Attributes:
        refusal: what the handler was told to answer, None when it is to serve.
    """

    def __init__(
        self,
        access: AccessControl,
        tenants_config: TenantsConfig,
        name: str,
        route: str,
        request_id: str,
    ) -> None:
        self._access, self._tenants_config, self.name = access, tenants_config, name
        self.route, self.request_id = route, request_id
        self._tenant: Tenant = tenants_config.tenants[name]
        self._claim: Claim | None = None
        self._priority: int | None = None
        self._running = 0
        self._closed = False
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

    def ask(self, asked: int | None, weight: int) -> int | Refusal:
        """The priority that the request gets, or why it gets none; the first answer stands.

        Args:
            asked: the priority that it asks for; None when it leaves the choice to the server.
            weight: how many sequences it asks for.
        """
        if self.refusal is not None:
            return self.refusal
        if self._priority is not None:
            return self._priority
        granted = grant(self._access.config, self._tenant, asked)
        if isinstance(granted, Refusal):
            return self.refuse(granted)
        if (refusal := self._claim_more(granted, weight)) is not None:
            return self.refuse(refusal)
        self._priority = granted
        return granted

    def expects(self, asked: int | None) -> int | None:
        """The priority that asking would get, limits apart, None if it would be refused.

        Args:
            asked: as for :meth:`ask`.
        """
        granted = grant(self._access.config, self._tenant, asked)
        return None if isinstance(granted, Refusal) else granted

    @contextlib.contextmanager
    def running(self, asked: int, weight: int) -> Iterator[int | Refusal]:
        """While the engine works on sequences of the request; gives their priority.

        A handler that has asked for all of them before has their places. One that has not is asked
        for here: nobody comes to the engine without a class, or with more than was granted.

        Args:
            asked: the priority with which the handler would have them run.
            weight: how many sequences.
        """
        granted: int | Refusal
        if self._closed:
            granted = self.refuse(Refusal("background", "the request has been answered already"))
        else:
            granted = self.ask(asked, weight)
        if not isinstance(granted, Refusal):
            held = self._claim.weight if self._claim else 0
            if (more := self._running + weight - held) > 0:
                refusal = self._claim_more(granted, more)
                granted = granted if refusal is None else self.refuse(refusal)
        if isinstance(granted, Refusal):
            yield granted
            return
        self._running += weight
        try:
            yield granted
        finally:
            self._running -= weight

    def refuse(self, refusal: Refusal) -> Refusal:
        """Count and write down a refusal, once."""
        if self.refusal is None:
            self.refusal = refusal
            self._access.refused(self.name, refusal, self.route, self.request_id)
        return self.refusal

    def close(self) -> None:
        """Give back what the request holds."""
        self._closed = True
        if self._claim is not None:
            self._access.limiter.release(self._claim)
            self._claim = None

    def _claim_more(self, priority: int, weight: int) -> Refusal | None:
        config = self._access.config
        cls = config.classes[config.level(priority)].name
        limits, most = self._tenant.classes[cls], self._tenants_config.max_in_flight.get(cls)
        claim = self._access.limiter.admit(self.name, cls, weight, limits, most, self._claim)
        if isinstance(claim, Refusal):
            return claim
        self._claim = claim
        return None


def tenant_request_of(raw_request: Any) -> TenantRequest | None:
    """What a request of FastAPI may do; None when it came by another way than the middleware."""
    return tenant_request_in(raw_request.scope)


def tenant_request_in(scope: Mapping[str, Any]) -> TenantRequest | None:
    """As :func:`tenant_request_of`, of an ASGI scope."""
    tenant_request = scope.get(SCOPE_KEY)
    return tenant_request if isinstance(tenant_request, TenantRequest) else None
