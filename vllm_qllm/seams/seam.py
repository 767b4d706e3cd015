# SPDX-License-Identifier: Apache-2.0
"""One attribute of vLLM that is wrapped."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

# The attribute of a wrapped function that says where it was wrapped.
MARK = "__vllm_qllm__"
RUN_TIME, SOURCE = "at run time", "in vLLM's source"


@dataclass(frozen=True)
class Seam:
    """One attribute of vLLM that is wrapped.

    Attributes:
        module: where the owner lives.
        owner: class name, or "" for the module itself.
        name: the attribute.
        parameters: names of its parameters in the vLLM version that we know.
        why: what it is for, in words for the operator.
        wrap: makes the replacement from the original function.
    """

    module: str
    owner: str
    name: str
    parameters: tuple[str, ...]
    why: str
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]]

    def __str__(self) -> str:
        return ".".join(part for part in (self.module, self.owner, self.name) if part)

    def holder(self) -> Any:
        """The class or module that holds the attribute; raises when it is not there."""
        module = import_module(self.module)
        return getattr(module, self.owner) if self.owner else module

    def wrapped_in(self) -> str | None:
        """Where it is wrapped, RUN_TIME or SOURCE; None while it is not."""
        return getattr(getattr(self.holder(), self.name), MARK, None)

    def install(self) -> bool:
        """Replace the attribute at run time; False when it is wrapped already."""
        return self.install_in(self.holder(), RUN_TIME)

    def install_in(self, holder: Any, place: str) -> bool:
        """Replace the attribute of ``holder``; False when it is wrapped already."""
        raw = vars(holder)[self.name]
        kind = type(raw) if isinstance(raw, (staticmethod, classmethod)) else None
        original = raw.__func__ if kind else raw
        if hasattr(original, MARK):
            return False
        replacement = self.wrapped(original, place)
        setattr(holder, self.name, kind(replacement) if kind else replacement)
        return True

    def wrapped(self, original: Callable[..., Any], place: str) -> Callable[..., Any]:
        """What stands for ``original``, marked with its place."""
        replacement = functools.wraps(original)(self.wrap(original))
        setattr(replacement, MARK, place)
        return replacement
