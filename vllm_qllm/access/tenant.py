# SPDX-License-Identifier: Apache-2.0
"""One tenant: which classes it may use, how much of each, and what it is known by."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from vllm_qllm.access.key import HASH_PATTERN

Hash = Annotated[str, Field(pattern=f"^{HASH_PATTERN}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Record(BaseModel):
    """Part of a tenants file: nothing is converted, unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Limits(Record):
    """How much of one class a tenant may use. A prompt with ``n`` 4 counts as four requests.

    Attributes:
        max_concurrent: requests that are being answered at a time; None: any number.
        requests_per_second: on average; None: any number.
        burst: requests that may come at once after a quiet time; None: those of a second.
        min_priority: smallest priority number within the class; None: any of the class.
    """

    max_concurrent: Count | None = None
    requests_per_second: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = (
        None
    )
    burst: Count | None = None
    min_priority: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None

    @property
    def bucket(self) -> int:
        """How many requests may come at once."""
        return self.burst or max(1, math.ceil(self.requests_per_second or 1))


class Tenant(Record):
    """Somebody with a key, or whom a gateway names.

    Attributes:
        keys: hashes of its keys (:func:`vllm_qllm.access.key.hash_of`).
        classes: that it may use, with its limits there.
        default_class: of requests that ask for none; None: that of priority 0 where it may use
            it, else the most urgent one that it may use.
        above: what happens to a request for a more urgent class than it may use.
        operator: it may use the paths that change or stop the server.
    """

    keys: tuple[Hash, ...] = Field(default=(), strict=False)
    classes: dict[str, Limits] = Field(min_length=1)
    default_class: str | None = None
    above: Literal["refuse", "lower"] = "refuse"
    operator: bool = False
