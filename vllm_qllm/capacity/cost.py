# SPDX-License-Identifier: Apache-2.0
"""What a step costs: a few named numbers that were fitted to measurements, in a JSON file."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_qllm.capacity.errors import CapacityError, check

FORMAT = 1
UNITS = {
    "step": "[tokens, seconds] of steps that attend to nothing, linear between these",
    "context_s": "seconds per token that a decode attends to",
    "pair_s": "seconds per query-key pair of a prefill",
    "overhead_s": "seconds a request spends outside of the engine: HTTP, tokenizer, client",
    "noise": "standard deviation of the logarithm of a step's seconds",
    "layers": "yield points of a step with yield_points: layer",
    "stretch_s": "seconds between yield points with yield_points: expert, if layers take longer",
    "suspend_s": "seconds from a yield point to the begin of the nested step",
    "resume_s": "seconds that a resumed step loses",
    "nested_s": "seconds that a step on top of a suspended one takes longer",
    "kv_blocks": "KV blocks that requests can use",
    "block_size": "tokens a KV block",
}


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 3600


@dataclasses.dataclass(frozen=True)
class Cost:
    """Durations on one kind of replica; ``UNITS`` says what each number is."""

    step: tuple[tuple[int, float], ...]
    context_s: float = 0.0
    pair_s: float = 0.0
    overhead_s: float = 0.0
    noise: float = 0.0
    layers: int = 16
    stretch_s: float = 0.003
    suspend_s: float = 0.0
    resume_s: float = 0.0
    nested_s: float = 0.0
    kv_blocks: int | None = None
    block_size: int | None = None
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check(
            len(self.step) >= 2
            and all(
                isinstance(n, int) and n >= 1 and _is_seconds(s) and s > 0 for n, s in self.step
            )
            and all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(self.step)),
            "step",
            self.step,
            "two or more pairs [tokens, seconds], both rising, from 1 token on",
        )
        for name in ("context_s", "pair_s", "overhead_s", "suspend_s", "resume_s", "nested_s"):
            value = getattr(self, name)
            check(_is_seconds(value), name, value, "seconds, 0 or more")
        check(
            _is_seconds(self.stretch_s) and self.stretch_s > 0,
            "stretch_s",
            self.stretch_s,
            "seconds above 0",
        )
        check(_is_seconds(self.noise) and self.noise <= 1, "noise", self.noise, "from 0 to 1")
        check(
            isinstance(self.layers, int) and self.layers >= 1,
            "layers",
            self.layers,
            "an integer of at least 1",
        )
        for name in ("kv_blocks", "block_size"):
            value = getattr(self, name)
            check(
                value is None or (isinstance(value, int) and value >= 1),
                name,
                value,
                "an integer of at least 1, or null",
            )

    def table(self, most: int) -> list[float]:
        """Seconds of a step of 0 to ``most`` tokens that attend to nothing.

        Beyond the last measured size the line through the last two goes on.
        """
        sizes = [n for n, _ in self.step]
        seconds = [0.0]
        for tokens in range(1, most + 1):
            right = min(max(bisect_left(sizes, tokens), 1), len(sizes) - 1)
            (x0, y0), (x1, y1) = self.step[right - 1], self.step[right]
            line = y0 + (y1 - y0) * (tokens - x0) / (x1 - x0)
            seconds.append(line if tokens >= sizes[0] else min(line, y0))
        return seconds

    def spacing(self, yield_points: str, seconds: float) -> float:
        """Time between two yield points of a step that takes ``seconds``."""
        if yield_points == "none":
            return math.inf
        layer = seconds / self.layers
        return min(layer, self.stretch_s) if yield_points == "expert" else layer

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`load` reads."""
        return {"format": FORMAT, "units": UNITS, **dataclasses.asdict(self)}

    def save(self, path: Path) -> None:
        """Write it as JSON, with the units."""
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def from_dict(cls, data: Any, origin: str = "cost") -> Cost:
        """Build from a mapping.

        Raises:
            CapacityError: a field is unknown, missing or malformed.
        """
        check(isinstance(data, dict), origin, data, "an object of field: value")
        check(data.get("format") == FORMAT, f"{origin}: format", data.get("format"), str(FORMAT))
        values = {k: v for k, v in data.items() if k not in ("format", "units")}
        known = {f.name for f in dataclasses.fields(cls)}
        for name in values:
            check(name in known, f"{origin}: field", name, ", ".join(sorted(known)))
        check("step" in values, f"{origin}: step", None, UNITS["step"])
        points = values["step"]
        check(
            isinstance(points, (list, tuple))
            and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in points),
            f"{origin}: step",
            points,
            "a list of [tokens, seconds]",
        )
        values["step"] = tuple((p[0], p[1]) for p in points)
        return cls(**values)

    @classmethod
    def load(cls, path: Path) -> Cost:
        """Read a file that :meth:`save` wrote.

        Raises:
            CapacityError: it cannot be read, is no JSON, or a field is malformed.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CapacityError(f"capacity: cannot read the cost file {path} ({error})") from error
        return cls.from_dict(data, str(path))
