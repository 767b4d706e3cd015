# SPDX-License-Identifier: Apache-2.0
"""The steps that are scheduled and not completed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from vllm.v1.core.sched.output import SchedulerOutput

from vllm_qllm.engine.step import Step


class Flight:
    """Steps in flight, outermost first.

    Steps nest: the last one is the one that runs, and all before it are suspended. Those of an
    engine that has several batches in flight complete in any order.

    Args:
        lanes: sets of per-step buffers that the model runners have.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = range(lanes)
        self._steps: list[Step] = []
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)

    # -- what happens --------------------------------------------------------------------------

    def next_number(self) -> int:
        """Number of a step that is to start; counts up from 1."""
        return next(self._numbers)

    def start(self, step: Step) -> None:
        """``step`` was scheduled, on top of those that are suspended."""
        self._steps.append(step)

    def end(self, step: Step) -> None:
        """``step`` is done, given up, or was not used."""
        self._steps.remove(step)

    # -- which they are ------------------------------------------------------------------------

    @property
    def last(self) -> Step:
        """The step that was scheduled last; IndexError when none is in flight."""
        return self._steps[-1]

    @property
    def below(self) -> Step | None:
        """The step that the last one runs on top of."""
        return self._steps[-2] if len(self._steps) > 1 else None

    @property
    def depth(self) -> int:
        """Steps below the last one."""
        return max(0, len(self._steps) - 1)

    @property
    def suspended(self) -> list[Step]:
        """The suspended steps, outermost first; all work nests on the last one."""
        return [step for step in self._steps if step.suspended_at is not None]

    def of(self, output: SchedulerOutput) -> Step | None:
        """The step that ``output`` is of; None if it is of none."""
        return next((step for step in self._steps if step.output is output), None)

    def suspending(self, request_id: str) -> Step | None:
        """The suspended step that a request is part of."""
        return next((step for step in self.suspended if request_id in step.request_ids), None)

    @property
    def suspended_ids(self) -> set[str]:
        """The requests that are part of a suspended step."""
        return {request_id for step in self.suspended for request_id in step.request_ids}

    @property
    def unwritten_blocks(self) -> frozenset[int]:
        """KV blocks that suspended steps have yet to write."""
        return frozenset().union(*(step.unwritten_blocks for step in self.suspended))

    def lane(self, level: int) -> int | None:
        """The lane of a step that is to start and may be suspended.

        The first lane is for what cannot be: CUDA graphs were captured on it, and it is never in
        use by a suspended step. Requests that stay in a lane need not be moved, so a class keeps to
        its own where it can.

        Args:
            level: of its most urgent class.

        Returns:
            That of its class, or another that is free; None if none is.
        """
        used = {step.lane for step in self.suspended}
        return next((n for n in (level, *self._lanes) if n > 0 and n not in used), None)
