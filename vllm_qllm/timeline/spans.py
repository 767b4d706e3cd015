# SPDX-License-Identifier: Apache-2.0
"""From events, which have one time, to spans, which have two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Span:
    """Something that lasted. Times are seconds of the engine's clock.

    Attributes:
        name: for a person.
        category: ``step``, ``copies``, ``suspended`` or ``request``.
        start: when it began; the first event of its step or request that is known.
        end: when it ended; the end of the document while it has not.
        args: what else is known of it.
    """

    name: str
    category: str
    start: float
    end: float
    args: dict[str, Any] = field(default_factory=dict)


def _by(events: Sequence[Event], about: str) -> dict[int, list[Event]]:
    found: dict[int, list[Event]] = {}
    for event in events:
        if about in event and event["kind"].startswith(about):
            found.setdefault(event[about], []).append(event)
    return found


def _details(event: Event) -> dict[str, Any]:
    return {k: v for k, v in event.items() if k not in ("number", "time", "kind")}


def step_spans(events: Sequence[Event], end: float) -> Iterator[tuple[int, Span]]:
    """Each step with its depth, followed by its copies of KV and each of its suspensions.

    Args:
        events: of one engine, in order of time.
        end: of what has not ended, seconds.
    """
    for own in _by(events, "step").values():
        first, last = own[0], own[-1]
        over = last["kind"] == "step_finished"
        stop = last["time"] if over else end
        args = _details(first) | ({} if over else {"unfinished": True})
        yield first["depth"], Span(_step_name(first), "step", first["time"], stop, args)
        for event, following in zip(own, [*own[1:], None], strict=True):
            if event["kind"] == "step_suspended":
                until = following["time"] if following else end
                name = f"suspended by {event['by']}"
                span = Span(name, "suspended", event["time"], until, _details(event))
                yield event["depth"], span
            elif event["kind"] == "step_copied" and first["kind"] == "step_started":
                # Told when the step is done, as one sum: most of it lies at the beginning, and what
                # layers restored for themselves lies between them.
                until = min(first["time"] + event["copying"], event["time"])
                span = Span("copies of KV", "copies", first["time"], until, _details(event))
                yield event["depth"], span


def _step_name(first: Event) -> str:
    if first["kind"] != "step_started":  # its beginning has been overwritten
        return str(first["class"])
    what = "decode" if first["decode_rows"] else "prefill"
    return f"{first['class']} {what}"


def request_spans(events: Sequence[Event], end: float) -> Iterator[tuple[list[Span], list[Event]]]:
    """Each request: the whole of it, then its phases; and when it was preempted and came back.

    Args:
        events: of one class of one engine, in order of time.
        end: of what has not ended, seconds.
    """
    for serial, own in _by(events, "request").items():
        times = {e["kind"]: e["time"] for e in reversed(own)}  # the first of each kind
        details: dict[str, Any] = {}
        for event in own:
            details |= _details(event)
        begin, over = own[0]["time"], own[-1]["kind"] == "request_finished"
        stop = own[-1]["time"] if over else end
        if not over:
            details["unfinished"] = True
        name = str(details.get("id", f"request {serial}"))
        spans = [Span(name, "request", begin, stop, details)]
        marks = ("request_arrived", "request_started", "request_first_token")
        for mark, phase in zip(marks, ("waiting", "prefill", "decode"), strict=True):
            if mark in times:
                later = [times[m] for m in marks[marks.index(mark) + 1 :] if m in times]
                spans.append(Span(phase, "request", times[mark], min([*later, stop])))
        yield spans, [e for e in own if e["kind"] in ("request_preempted", "request_resumed")]
