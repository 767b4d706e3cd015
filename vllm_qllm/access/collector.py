# SPDX-License-Identifier: Apache-2.0
"""What tenants did, for ``/metrics``. Tenants and classes come from files: labels are bounded.

What nobody asked for has no series. Those of a tenant are made when they are read, as those of a
thousand tenants together take a tenth of a second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Sample
from prometheus_client.registry import Collector

from vllm_qllm.access.access_control import AccessControl, this_access
from vllm_qllm.access.limiter import ACTIVE, ADMITTED, REASONS, REFUSED
from vllm_qllm.access.tenants_config import NONE
from vllm_qllm.access.tenants_file import LOADED
from vllm_qllm.access.tenants_file import REFUSED as RELOAD_REFUSED

Family = CounterMetricFamily | GaugeMetricFamily

USED = ("tenant", "class")


class AccessCollector(Collector):
    """Yields nothing where there are no tenants."""

    def describe(self) -> Iterator[Family]:
        """Nothing: registering must not depend on a server that has started."""
        return iter(())

    def collect(self) -> Iterator[Family]:
        """All API servers together, whichever of them is asked."""
        access = this_access()
        if access is not None:
            yield from _families(access)


def _families(access: AccessControl) -> Iterator[Family]:
    tenants = (*access.tenants_config.tenants, NONE)
    for kind in (_Admitted, _InFlight, _Refusals):
        family = kind.family()
        family.samples = Parts(functools.partial(_parts, access, kind, tenants))  # type: ignore[assignment]
        yield family
    reloads = CounterMetricFamily(
        "qllm_tenants_reloads_total",
        "Changed tenants files by what came of reading them; each API server reads its own.",
        labels=("outcome",),
    )
    for outcome in (LOADED, RELOAD_REFUSED):
        reloads.add_metric((outcome,), access.limiter.reloads(outcome))
    yield reloads


class Parts:
    """Samples of a family that are made while somebody reads them, those of a tenant at a time.

    Args:
        make: begins to make them.
    """

    def __init__(self, make: Callable[[], Iterator[list[Sample]]]) -> None:
        self.parts = make

    def __iter__(self) -> Iterator[Sample]:
        return chain.from_iterable(self.parts())


def _parts(
    access: AccessControl, kind: type[_Kind], tenants: Sequence[str]
) -> Iterator[list[Sample]]:
    classes = (*(c.name for c in access.config.classes), NONE)
    for tenant in tenants:
        family = kind.family()
        for cls in classes:
            kind.add(family, tenant, cls, access.limiter.numbers(tenant, cls))
        yield family.samples


class _Kind(Protocol):
    @staticmethod
    def family() -> Family: ...

    @staticmethod
    def add(family: Family, tenant: str, cls: str, numbers: Sequence[int]) -> None: ...


class _Admitted(_Kind):
    @staticmethod
    def family() -> Family:
        text = "HTTP requests admitted to a class."
        return CounterMetricFamily("qllm_tenant_requests_total", text, labels=USED)

    @staticmethod
    def add(family: Family, tenant: str, cls: str, numbers: Sequence[int]) -> None:
        if _was_asked_for(tenant, cls, numbers):
            family.add_metric((tenant, cls), numbers[ADMITTED])


class _InFlight(_Kind):
    @staticmethod
    def family() -> Family:
        text = "Sequences admitted and not answered yet."
        return GaugeMetricFamily("qllm_tenant_in_flight", text, labels=USED)

    @staticmethod
    def add(family: Family, tenant: str, cls: str, numbers: Sequence[int]) -> None:
        if _was_asked_for(tenant, cls, numbers):
            family.add_metric((tenant, cls), numbers[ACTIVE])


class _Refusals(_Kind):
    @staticmethod
    def family() -> Family:
        text = "HTTP requests refused, by the class that they asked for."
        return CounterMetricFamily("qllm_refusals_total", text, labels=(*USED, "reason"))

    @staticmethod
    def add(family: Family, tenant: str, cls: str, numbers: Sequence[int]) -> None:
        for reason, count in zip(REASONS, numbers[REFUSED:], strict=False):
            if count:
                family.add_metric((tenant, cls, reason), count)


def _was_asked_for(tenant: str, cls: str, numbers: Sequence[int]) -> bool:
    return NONE not in (tenant, cls) and bool(numbers[ADMITTED] or numbers[ACTIVE])
