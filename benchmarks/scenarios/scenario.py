# SPDX-License-Identifier: Apache-2.0
"""What a scenario is."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from benchmarks.load.drive import Times
from benchmarks.load.streams import ClosedLoop, Stream
from benchmarks.record.record import Point

# The same for every scenario, so that one server can serve several. Prefix caching is off: prompts
# share nothing, so it could only cost. The models stop at 4096 positions by their own word; rotary
# embeddings are computed for any, and what random weights say there is as good as elsewhere.
LONGEST = 9216
COMMON = (
    "--no-enable-prefix-caching",
    *("--max-model-len", str(LONGEST)),
    *("--hf-overrides", f'{{"max_position_embeddings": {LONGEST}}}'),
)

USUAL = Times(warm_up=10.0, seconds=60.0, drain=60.0)


def plain(value: Any) -> Any:
    """A dataclass as data, with its type's name, for arrivals differ by nothing else."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Variant:
    """One load; ``point`` says which, where a scenario has several."""

    streams: tuple[Stream, ...]
    point: Point | None = None

    @property
    def open_kinds(self) -> list[str]:
        """Classes whose requests come whether or not earlier ones were answered."""
        return sorted({k for s in self.streams if not isinstance(s, ClosedLoop) for k in s.kinds})

    def plain(self) -> list[dict[str, Any]]:
        """The streams as data, for the record."""
        return [plain(stream) for stream in self.streams]


@dataclass(frozen=True)
class Scenario:
    """A question, the load that puts it, and the systems that answer it.

    Attributes:
        decode_slo: what LS is promised until its first token, in decode iterations of an LS request
            that has the server to itself.
        arguments: of every server, besides those of the system.
        quick: the variants that a quick run takes, by index.
    """

    name: str
    question: str
    variants: tuple[Variant, ...]
    systems: tuple[str, ...]
    times: Times = USUAL
    decode_slo: float = 10.0
    arguments: tuple[str, ...] = ()
    quick: tuple[int, ...] = (0,)

    def tried(self, quick: bool) -> tuple[Variant, ...]:
        """The variants of a whole or of a quick run."""
        return tuple(self.variants[i] for i in self.quick) if quick else self.variants
