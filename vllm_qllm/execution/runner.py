# SPDX-License-Identifier: Apache-2.0
"""What nested steps need of a model runner."""

from __future__ import annotations

from typing import Any, Protocol

from vllm.v1.core.sched.output import SchedulerOutput


class Runner(Protocol):
    """A model runner of vLLM whose state of a step is in lanes: one for each step in flight."""

    def begin(self, lane: int, output: SchedulerOutput) -> None:
        """Make ``lane`` the current one, for a step that starts with ``output``."""
        ...

    def leave(self) -> Any:
        """The running step is suspended.

        Returns:
            What of it is in no lane, and a nested step may replace.
        """
        ...

    def enter(self, lane: int, left: Any) -> None:
        """The step of ``lane`` goes on, with what :meth:`leave` returned."""
        ...

    def forget(self, output: SchedulerOutput) -> None:
        """The step of ``output`` was given up: nothing that it began is kept."""
        ...
