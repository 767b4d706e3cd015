# SPDX-License-Identifier: Apache-2.0
"""How long a pure decode step takes as a function of its number of requests."""

from __future__ import annotations


class DecodeCost:
    """Exponentially weighted least squares of ``seconds = a + b * requests``.

    Fed with every pure decode step; asked how many less urgent decodes may ride along.

    Args:
        decay: weight of the past at each observation; 0.98 forgets over some fifty steps.
    """

    def __init__(self, decay: float = 0.98) -> None:
        self._decay = decay
        self._w = self._wx = self._wy = self._wxx = self._wxy = 0.0

    def observe(self, requests: int, seconds: float, times: int = 1) -> None:
        """Add the measured duration of one pure decode step, or of ``times`` like ones."""
        d, new = self._decay, float(times)
        if times > 1:
            d, new = d**times, (1.0 - d**times) / (1.0 - d) if d < 1.0 else new
        self._w = d * self._w + new
        self._wx = d * self._wx + new * requests
        self._wy = d * self._wy + new * seconds
        self._wxx = d * self._wxx + new * requests * requests
        self._wxy = d * self._wxy + new * requests * seconds

    def predict(self, requests: int) -> float | None:
        """Expected seconds, or None while too little is known to tell."""
        line = self._line()
        if line is None:
            return None
        seconds = line[0] + line[1] * requests
        return seconds if seconds > 0.0 else None

    def _line(self) -> tuple[float, float] | None:
        if self._w < 3.0:
            return None
        mean_x, mean_y = self._wx / self._w, self._wy / self._w
        variance = self._wxx / self._w - mean_x * mean_x
        if variance < 0.05:
            return None
        # More requests never cost less: noise must not turn the slope around.
        slope = max(0.0, (self._wxy / self._w - mean_x * mean_y) / variance)
        return mean_y - slope * mean_x, slope

    def riders(self, urgent: int, candidates: int, slowdown: float) -> int:
        """How many of ``candidates`` may join ``urgent`` decodes within ``slowdown``.

        While nothing is known one may join, which is how it becomes known.
        """
        if urgent <= 0 or candidates <= 0 or slowdown <= 1.0:
            return 0
        alone, line = self.predict(urgent), self._line()
        if alone is None or line is None:
            return 1
        if line[1] == 0.0:
            return candidates
        return min(candidates, int(alone * (slowdown - 1.0) / line[1]))
