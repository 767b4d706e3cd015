# SPDX-License-Identifier: Apache-2.0
"""Compares the vLLM in a directory with the one that this package was written against."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vllm_qllm.contract.dependency import ATTRIBUTE, BODY, Dependency
from vllm_qllm.contract.source import (
    Function,
    Source,
    body_digest,
    code,
    declaration_digest,
    parameters,
)
from vllm_qllm.contract.uses import ALL

KNOWN = Path(__file__).with_name("known.json")
GONE, PARAMETERS, BODY_CHANGED, DECLARATION = (
    "gone",
    "other parameters",
    "another body",
    "declared in another way",
)
ORDER = (GONE, PARAMETERS, BODY_CHANGED, DECLARATION)
# What is known of one symbol: name of a fact to its value.
Facts = dict[str, str | list[str]]


@dataclass(frozen=True)
class Difference:
    """One symbol that is not what it was.

    Attributes:
        dependency: which, and why that matters.
        what: one of ``ORDER``.
        detail: what it is now and what it was; "" when a digest says no more.
    """

    dependency: Dependency
    what: str
    detail: str = ""

    def __str__(self) -> str:
        of = self.dependency
        detail = f" ({self.detail})" if self.detail else ""
        return f"{of.symbol}: {self.what}{detail}. Used by {of.used_by}: {of.why}"


def installed_root() -> Path | None:
    """The directory that holds the installed vLLM, without importing it; None: there is none."""
    spec = importlib.util.find_spec("vllm")
    return Path(spec.origin).parent.parent if spec and spec.origin else None


def facts(dependency: Dependency, nodes: list[ast.AST]) -> Facts:
    """What is worth knowing of a symbol that is defined by ``nodes``."""
    if dependency.kind == ATTRIBUTE:
        return {"declaration": declaration_digest(nodes)}
    found: Facts = {}
    if functions := [node for node in nodes if isinstance(node, Function)]:
        found["parameters"] = [p for function in functions for p in parameters(function)]
    if dependency.kind == BODY:
        found["body"] = body_digest(nodes)
    return found or {"declaration": declaration_digest(nodes)}


def known() -> dict[str, Facts]:
    """The accepted facts, by symbol."""
    accepted: dict[str, Facts] = json.loads(KNOWN.read_text())
    return accepted


class Comparison:
    """One vLLM against what is known.

    Args:
        root: directory that holds the package ``vllm``. What it does not hold at all, a library
            beside vLLM, is looked up among the installed ones.
    """

    def __init__(self, root: Path) -> None:
        self._source = Source(root)
        self._beside: dict[str, Source] = {}

    def definitions(self, dependency: Dependency) -> list[ast.AST]:
        """All that defines a symbol; empty when it is gone."""
        package = dependency.symbol.partition(":")[0].partition(".")[0]
        return self._source_of(package).find(dependency.symbol)

    def _source_of(self, package: str) -> Source:
        if package == "vllm" or self._source.has(package):
            return self._source
        if package not in self._beside:
            spec = importlib.util.find_spec(package)
            root = Path(spec.origin).parent.parent if spec and spec.origin else Path()
            self._beside[package] = Source(root)
        return self._beside[package]

    def differences(self, of: Iterable[Dependency] = ALL) -> Iterator[Difference]:
        """All that is not as it was, in the order of ``of``."""
        accepted = known()
        for dependency in of:
            nodes = self.definitions(dependency)
            if not nodes:
                yield Difference(dependency, GONE)
                continue
            now, was = facts(dependency, nodes), accepted.get(dependency.symbol, {})
            if now.get("parameters") != was.get("parameters"):
                detail = _changed(now.get("parameters", ()), was.get("parameters", ()))
                yield Difference(dependency, PARAMETERS, detail)
            elif now.get("body") != was.get("body"):
                yield Difference(dependency, BODY_CHANGED)
            elif now.get("declaration") != was.get("declaration"):
                yield Difference(dependency, DECLARATION)

    def accept(self) -> list[Difference]:
        """Write down this vLLM as the known one; not when something is gone, which is returned."""
        found = {d.symbol: (d, self.definitions(d)) for d in ALL}
        if gone := [Difference(d, GONE) for d, nodes in found.values() if not nodes]:
            return gone
        # A line for each, so that a diff of two versions can be read.
        lines = (f"{json.dumps(s)}: {json.dumps(facts(*of))}" for s, of in sorted(found.items()))
        KNOWN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return []


def _changed(now: Iterable[str], was: Iterable[str]) -> str:
    sides = {
        "now with": [p for p in now if p not in was],
        "without": [p for p in was if p not in now],
    }
    said = "; ".join(f"{side} {', '.join(names)}" for side, names in sides.items() if names)
    return said or f"now in the order {', '.join(now)}"


def diff(dependency: Dependency, old: Comparison, new: Comparison) -> str:
    """How the code of a symbol differs between two vLLMs, as a unified diff without formatting."""
    before, after = (
        "\n".join(map(code, of.definitions(dependency))).splitlines() for of in (old, new)
    )
    return "\n".join(difflib.unified_diff(before, after, "known", "now", lineterm="", n=2))
