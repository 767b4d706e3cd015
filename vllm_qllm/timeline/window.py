# SPDX-License-Identifier: Apache-2.0
"""The part of a ring that concerns the last seconds."""

from __future__ import annotations

import numpy as np

from vllm_qllm.timeline.events import KINDS
from vllm_qllm.timeline.ring import Rows

# By code of the kind.
_ENDS = np.array([kind.ends for kind in KINDS])
_STATES = np.array([kind.state for kind in KINDS])
_SUBJECTS = ("", "step", "request")
_ABOUT = np.array([_SUBJECTS.index(kind.about) for kind in KINDS])


def since(rows: Rows, time: int) -> Rows:
    """The records of ``time`` (nanoseconds) and later, and what they need to be understood.

    That is: all records of steps and requests that had not ended then, and what held for each
    class at that time.
    """
    before = rows["time"] < time
    about = _ABOUT[rows["kind"]]
    key = rows["subject"] * len(_SUBJECTS) + about
    gone = key[before & _ENDS[rows["kind"]]]
    keep = ~before | ((about > 0) & ~np.isin(key, gone))
    states = np.flatnonzero(before & _STATES[rows["kind"]])
    last = {(int(rows["kind"][index]), int(rows["level"][index])): index for index in states}
    keep[list(last.values())] = True
    return rows[keep]
