# SPDX-License-Identifier: Apache-2.0
"""Whether the engine stands still while requests wait, as an API server sees it.

An engine's thread that hangs cannot say so, and what it said last may be that it had nothing to do:
requests that were sent since then have not been taken. Both sides are needed to tell an engine that
hangs from one that is idle.
"""

from __future__ import annotations

import functools
import time
from http import HTTPStatus
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from vllm.exceptions import GracefulHTTPError

from vllm_qllm.metrics.pulse import PulseReader

METRIC = "qllm_stalled_seconds"
HELP = "For how long requests have waited while no step began, ended, was suspended or went on."
# Requests that have ended are forgotten once there are so many more than of those that have not.
SPARE = 1000


class StalledError(GracefulHTTPError):
    """What ``/health`` answers beyond the limit, with status 503."""

    def __init__(self, seconds: float, limit: float) -> None:
        super().__init__(
            f"The engine has made no step for {seconds:.1f} s while requests wait; "
            f"stall_limit_ms allows {1000 * limit:g} ms.",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


class Standstill:
    """Follows what one client sends to its engine; replaces two methods on the client's objects.

    Args:
        client: an ``AsyncLLM``.
        pulse: of its engine.
        limit: seconds after which ``/health`` fails; 0 for never.
    """

    def __init__(self, client: Any, pulse: PulseReader, limit: float) -> None:
        self._pulse, self._limit = pulse, limit
        # When each request was sent; for what is sent in parts, the last one.
        self._sent: dict[str, float] = {}
        self._processor = client.output_processor
        for owner, name in ((self._processor, "add_request"), (client, "check_health")):
            replacement = getattr(self, f"_{name}")
            setattr(owner, name, functools.partial(replacement, getattr(owner, name)))

    def _add_request(self, original: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        self._sent[request.request_id] = time.monotonic()
        result = original(request, *args, **kwargs)
        if len(self._sent) > 2 * len(self._processor.request_states) + SPARE:
            open_ = self._processor.request_states
            self._sent = {name: at for name, at in self._sent.items() if name in open_}
        return result

    async def _check_health(self, original: Any) -> None:
        await original()
        if self.exceeded:
            raise StalledError(self.seconds(), self._limit)

    @property
    def exceeded(self) -> bool:
        """Whether it stands still for longer than the limit."""
        return bool(self._limit) and self.seconds() > self._limit

    def seconds(self) -> float:
        """For how long the engine has stood still; 0 while it goes on or nothing waits.

        Any thread may call it.
        """
        beat, busy = self._pulse.read()
        if not beat:
            return 0.0  # it has not begun to record, or there is no place for it
        now = time.monotonic()
        if busy:
            return max(0.0, now - beat)
        open_ = self._processor.request_states
        # A list first: the loop goes on to send requests meanwhile.
        waiting = [at for name, at in list(self._sent.items()) if at > beat and name in open_]
        return now - min(waiting, default=now)


_this: Standstill | None = None


def watch(client: Any, pulse: PulseReader, limit: float) -> Standstill:
    """Follow the client of this process from now on; arguments as of :class:`Standstill`."""
    global _this
    _this = Standstill(client, pulse, limit)
    return _this


class StandstillCollector(Collector):
    """The gauge on ``/metrics``; nothing in a process that has no client."""

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: registering must not depend on a server that has started."""
        return []

    def collect(self) -> list[GaugeMetricFamily]:
        """As this API server sees it."""
        return [] if _this is None else [GaugeMetricFamily(METRIC, HELP, value=_this.seconds())]
