# SPDX-License-Identifier: Apache-2.0
"""What tenants did, for ``/metrics``. Tenants and classes come from files: labels are bounded.

What nobody asked for has no series: all those of a thousand tenants take a tenth of a second of the
server's loop at each scrape.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
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
    admitted = CounterMetricFamily(
        "qllm_tenant_requests_total", "HTTP requests admitted to a class.", labels=USED
    )
    in_flight = GaugeMetricFamily(
        "qllm_tenant_in_flight", "Sequences admitted and not answered yet.", labels=USED
    )
    refusals = CounterMetricFamily(
        "qllm_refusals_total",
        "HTTP requests refused, by the class that they asked for.",
        labels=(*USED, "reason"),
    )
    for tenant in (*access.tenants_config.tenants, NONE):
        for cls in (*(c.name for c in access.config.classes), NONE):
            numbers = access.limiter.numbers(tenant, cls)
            if NONE not in (tenant, cls) and (numbers[ADMITTED] or numbers[ACTIVE]):
                admitted.add_metric((tenant, cls), numbers[ADMITTED])
                in_flight.add_metric((tenant, cls), numbers[ACTIVE])
            for reason, count in zip(REASONS, numbers[REFUSED:], strict=False):
                if count:
                    refusals.add_metric((tenant, cls, reason), count)
    reloads = CounterMetricFamily(
        "qllm_tenants_reloads_total",
        "Changed tenants files by what came of reading them; each API server reads its own.",
        labels=("outcome",),
    )
    for outcome in (LOADED, RELOAD_REFUSED):
        reloads.add_metric((outcome,), access.limiter.reloads(outcome))
    yield from (admitted, in_flight, refusals, reloads)
