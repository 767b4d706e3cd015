# SPDX-License-Identifier: Apache-2.0
"""One thing of vLLM that this package relies on, and why."""

from __future__ import annotations

from dataclasses import dataclass

# What of it is relied on. A body includes its signature.
ATTRIBUTE, SIGNATURE, BODY = "attribute", "signature", "body"


@dataclass(frozen=True)
class Dependency:
    """A symbol of vLLM that must be what it was when this package was written against it.

    Attributes:
        symbol: ``module:name`` or ``module:Class.name``, where it is defined.
        kind: ``attribute`` (it exists, declared the same way), ``signature`` (it takes the same
            parameters) or ``body`` (it does the same).
        used_by: where this package relies on it, ``module:name`` below ``vllm_qllm``.
        why: what goes wrong, or what has to be looked at, when it differs. Starts with a capital.
    """

    symbol: str
    kind: str
    used_by: str
    why: str

    @property
    def name(self) -> str:
        """The last part of the symbol."""
        return self.symbol.rpartition(":")[2].rpartition(".")[2]

    @property
    def owner(self) -> str:
        """The class that it belongs to, "" for none."""
        return self.symbol.rpartition(":")[2].rpartition(".")[0]


Use = tuple[str, str, str, str]


def attribute(names: str, used_by: str, why: str) -> Use:
    """Some attributes, separated by spaces, that are read or set."""
    return ATTRIBUTE, names, used_by, why


def signature(names: str, used_by: str, why: str) -> Use:
    """Some functions that are called or overridden."""
    return SIGNATURE, names, used_by, why


def body(names: str, used_by: str, why: str) -> Use:
    """Some functions or classes whose behaviour is relied on."""
    return BODY, names, used_by, why


def uses(owner: str, *of: Use) -> tuple[Dependency, ...]:
    """Records of one owner, which is ``module:`` or ``module:Class``."""
    dot = "" if owner.endswith(":") else "."
    return tuple(
        Dependency(f"{owner}{dot}{name}", kind, used_by, why)
        for kind, names, used_by, why in of
        for name in names.split()
    )
