# SPDX-License-Identifier: Apache-2.0
"""The part of a ring that concerns the last seconds."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_qllm.timeline.events import QUEUE
from vllm_qllm.timeline.ring import Record


def since(records: Sequence[Record], time: int) -> list[Record]:
    """The records of ``time`` (nanoseconds) and later, and what they need to be understood.

    That is: all records of steps and requests that had not ended then, and the state of each
    queue at that time.
    """
    gone = {(r.kind.about, r.subject) for r in records if r.time < time and r.kind.ends}
    queues = {r.rank: r.number for r in records if r.kind is QUEUE and r.time < time}
    before = set(queues.values())
    return [
        r
        for r in records
        if r.time >= time
        or r.number in before
        or (r.kind.about and (r.kind.about, r.subject) not in gone)
    ]
