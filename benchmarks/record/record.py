# SPDX-License-Identifier: Apache-2.0
"""What one measured run leaves behind: one JSON file for each (scenario, point, system, round).

Times are seconds since the run began, at the client, unless a name says otherwise; ``began_unix``
and ``began_monotonic`` say when that was. Nothing is summed up here, so that a table or a picture
can be made again, differently, from the same file: see ``benchmarks.summary``.
"""

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import msgspec

# Changes whenever files of the old form cannot be read as the new one.
FORMAT = 1

LS, BE = "LS", "BE"
KINDS = (LS, BE)

Outcome = Literal["ok", "failed", "unanswered"]
OK: Outcome = "ok"
FAILED: Outcome = "failed"
UNANSWERED: Outcome = "unanswered"


class BadRecord(ValueError):
    """A file that is no result of this format. The message names the file and what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What became of one request.

    Attributes:
        kind: its class, ``LS`` (latency sensitive) or ``BE`` (best effort).
        number: within its class; together with the seed it determines the prompt.
        priority: as sent to the server; None where the server takes none.
        prompt, output: length of the prompt, and how many output tokens were asked for.
        scheduled: when it was due; a closed loop schedules when the one before it has ended.
        sent: when it was really sent.
        first: when the first output token came.
        gaps_us: microseconds from each output token to the next; tokens that came together have 0.
        end: when the answer was complete, failed, or was given up.
        outcome: ``ok``; ``failed`` (see ``error``); ``unanswered`` when the run ended before it.
    """

    kind: str
    number: int
    priority: int | None = None
    prompt: int
    output: int
    scheduled: float
    sent: float
    first: float | None = None
    gaps_us: list[int] = field(default_factory=list)
    end: float | None = None
    outcome: Outcome = "unanswered"
    error: str | None = None

    @property
    def tokens(self) -> list[float]:
        """When each output token came, in seconds since the run began."""
        if self.first is None:
            return []
        return [self.first + us / 1e6 for us in accumulate(self.gaps_us, initial=0)]

    @property
    def gaps(self) -> list[float]:
        """Seconds from each output token to the next."""
        return [us / 1e6 for us in self.gaps_us]


@dataclass(frozen=True)
class Equality:
    """Requests of the run that were sent again, one by one, to the then idle server.

    Attributes:
        numbers: of the requests compared.
        equal: how many got the same tokens both times.
        different_at: for each of the others, the first position whose token differs.
        cause: why nothing could be compared, where nothing was.
    """

    numbers: list[int] = field(default_factory=list)
    equal: int = 0
    different_at: list[int] = field(default_factory=list)
    cause: str | None = None


@dataclass(frozen=True)
class Point:
    """One value of what a scenario varies, such as 1.6 of ``requests/s``."""

    name: str
    value: float


@dataclass(frozen=True)
class Record:
    """One run of one system under one load.

    Attributes:
        key: identifies conditions, source, load and system: equal keys need no second run.
        about: the system in words.
        seed: of arrivals, lengths and prompts.
        status, cause: ``failed`` when there is no run to speak of, and why.
        began_at: wall-clock time, ISO 8601.
        began_unix, began_monotonic: the same moment, in seconds of the two clocks.
        window: (start, end) of what counts; before it is warm-up, after it late answers.
        ended: when the load was ended.
        start_seconds: how long the server took to start.
        command: the server's command line.
        conditions: machine, versions, commit; see ``benchmarks.conditions``.
        plan: scenario, load and durations, in words and numbers.
        before, after: the engine's counters at both ends of the window: Prometheus samples such as
            ``qllm_suspensions_total{by="LS",of="BE"}``; samples that are zero are left out.
        ttft_slo: seconds to the first LS token that the scenario promises, if it does.
        decode_slo: the same in decode iterations of the server that LS has to itself.
        responses: exact response times in seconds by class, where the engine recorded them.
        equality: by class; see Equality.
    """

    scenario: str
    system: str
    round: int
    key: str
    about: str
    point: Point | None = None
    seed: int = 0
    status: Literal["ok", "failed"] = "ok"
    cause: str | None = None
    began_at: str = ""
    began_unix: float = 0.0
    began_monotonic: float = 0.0
    window: tuple[float, float] = (0.0, 0.0)
    ended: float = 0.0
    start_seconds: float = 0.0
    command: str = ""
    conditions: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    ttft_slo: float | None = None
    decode_slo: float | None = None
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    responses: dict[str, list[float]] = field(default_factory=dict)
    equality: dict[str, Equality] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    format: int = FORMAT

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return self.window[1] - self.window[0]

    def of(self, kind: str) -> list[Request]:
        """All requests of a class, warm-up included."""
        return [r for r in self.requests if r.kind == kind]

    def is_open(self, kind: str) -> bool:
        """Whether requests of the class came whether or not earlier ones were answered."""
        return kind in self.plan.get("open", ())

    def inside(self, kind: str) -> list[Request]:
        """Requests of a class that were due inside the window."""
        start, end = self.window
        return [r for r in self.requests if r.kind == kind and start <= r.scheduled < end]


def failed(record: Record, cause: str) -> Record:
    """The same with the status ``failed``."""
    return dataclasses.replace(record, status="failed", cause=cause)


def path_of(folder: Path, record: Record) -> Path:
    """Where a record belongs below ``folder``."""
    point = "" if record.point is None else f"-{record.point.value:g}"
    return folder / record.scenario / f"{record.system}{point}-{record.round}.json"


def save(record: Record, folder: Path) -> Path:
    """Write it, one request a line; an interrupted write leaves what was there before."""
    path = path_of(folder, record)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = dataclasses.asdict(dataclasses.replace(record, requests=[]))
    del head["requests"]
    lines = [
        f"{msgspec.json.encode(name).decode()}:{msgspec.json.encode(value).decode()}"
        for name, value in head.items()
    ]
    rows = ",\n".join(msgspec.json.encode(sparse(r)).decode() for r in record.requests)
    text = "{" + ",\n".join([*lines, f'"requests":[\n{rows}]']) + "}\n"
    half = path.with_suffix(".part")
    half.write_text(text)
    os.replace(half, path)
    return path


def sparse(request: Request) -> dict[str, Any]:
    """A request without the fields that say nothing, times to the microsecond."""
    values = {k: v for k, v in dataclasses.asdict(request).items() if v not in (None, [])}
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


def load(path: Path) -> Record:
    """Read one file. Raises BadRecord for anything that is not a result of this format."""
    try:
        raw = msgspec.json.decode(path.read_bytes())
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else None
            raise BadRecord(f"{path}: format {found!r}; this program reads format {FORMAT}")
        return msgspec.convert(raw, Record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRecord(f"{path}: {error}") from error
    except OSError as error:
        raise BadRecord(f"{path}: {error.strerror}") from error


def load_all(paths: Iterable[Path]) -> list[Record]:
    """Read files, and all ``*.json`` below folders; sorted by path within each."""
    found: list[Record] = []
    for path in paths:
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        if not files:
            raise BadRecord(f"{path}: no results (*.json) in this folder")
        found += map(load, files)
    return found
