# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters of the step that runs: one set for all lanes, put back when a step resumes.

Which adapter each token uses, and which adapters are in the slots, is state of the model's layers,
not of the runner's buffers. A nested step sets its own, so the suspended one sets its own again.
"""

from __future__ import annotations

from typing import Any


class ActiveLoRA:
    """Remembers what the runner activated last, for one model runner.

    Does nothing on a runner without LoRA.
    """

    def __init__(self, runner: Any) -> None:
        self._active: tuple[Any, ...] | None = None
        self._activate = None
        if runner.lora_config:
            self._activate = runner._set_active_loras
            runner._set_active_loras = self._remember

    def _remember(self, *args: Any) -> None:
        self._active = args
        self._activate(*args)  # type: ignore[misc]

    @property
    def active(self) -> tuple[Any, ...] | None:
        """What the running step uses, for :meth:`restore`."""
        return self._active

    def restore(self, active: tuple[Any, ...] | None) -> None:
        """Make a suspended step's adapters the active ones again."""
        if active is not None and active is not self._active:
            self._remember(*active)
