# SPDX-License-Identifier: Apache-2.0
"""What copying and computing take, as measured, and which of the two is the cheaper."""

from __future__ import annotations

from vllm_qllm.kv.copies import CopyReport

# Of the newest measurement; older ones fade.
WEIGHT = 0.2
# A step of fewer tokens tells little about what a prefill costs a token.
ENOUGH_TOKENS = 64
# What is left of a measured copy rate each time that it speaks against copying.
FADING = 0.9


class Rate:
    """Seconds per unit, as a moving average; None before the first measurement."""

    def __init__(self) -> None:
        self.seconds: float | None = None

    def observe(self, units: int, seconds: float) -> None:
        """``units`` took ``seconds`` together."""
        if units > 0:
            one = seconds / units
            old = one if self.seconds is None else self.seconds
            self.seconds = old + WEIGHT * (one - old)


class Costs:
    """Seconds per block copied and per token computed."""

    def __init__(self) -> None:
        self._offload = Rate()
        self._restore = Rate()
        self._token = Rate()

    def copied(self, report: CopyReport) -> None:
        """Learn from one step's copies."""
        self._offload.observe(report.offloaded, report.offload_seconds)
        self._restore.observe(report.restored, report.restore_seconds)

    def fade(self) -> None:
        """Believe the copy rates a little less: only copying can show that they were exceptions."""
        for rate in (self._offload, self._restore):
            if rate.seconds is not None:
                rate.seconds *= FADING

    def computed(self, tokens: int, seconds: float) -> None:
        """Learn from one step that computed ``tokens`` prompt tokens."""
        if tokens >= ENOUGH_TOKENS:
            self._token.observe(tokens, seconds)

    def restore(self, offloads: int, restores: int) -> float:
        """Seconds to copy ``offloads`` blocks to the host and ``restores`` from it.

        Nothing before it was measured: then copying is tried.
        """
        to, fro = self._offload.seconds, self._restore.seconds
        to = to if to is not None else fro or 0.0
        return offloads * to + restores * (fro if fro is not None else to)

    def recompute(self, tokens: int) -> float:
        """Seconds to compute ``tokens`` again; endless before it was measured."""
        return float("inf") if self._token.seconds is None else tokens * self._token.seconds
