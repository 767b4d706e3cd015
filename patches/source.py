# SPDX-License-Identifier: Apache-2.0
"""Puts seams into copies of vLLM's files, in memory. Raises LookupError where one has no place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from patches.ledger import Borrowed
from vllm_qllm.seams import Seam

IMPORT = "from vllm.priority_seams import seam\n"
# What these make is no function: a wrapper goes below them.
OUTERMOST = {"staticmethod", "classmethod"}

Definition = TypeVar("Definition", ast.FunctionDef, ast.ClassDef)


class File:
    """One file of vLLM and what is inserted into it.

    Args:
        root: the directory that holds ``vllm/``.
        name: below ``root``.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.original = (root / name).read_text(encoding="utf-8")
        self.tree = ast.parse(self.original)
        # By the number of the line before which it goes, from 1.
        self._inserted: dict[int, str] = {}

    def decorate(self, seam: Seam) -> bool:
        """Add the decorator where the seam's function is defined; False when it is not here."""
        body: list[ast.stmt] = self.tree.body
        place: ast.FunctionDef | ast.ClassDef | None = None
        if seam.owner:
            place = _only(body, ast.ClassDef, seam.owner)
            if place is None:
                return False
            body = place.body
        # A dataclass has no text for its __init__: then the decorator is the class's.
        place = _only(body, ast.FunctionDef, seam.name) or place
        if place is None:
            return False
        if isinstance(place, ast.ClassDef) and seam.name != "__init__":
            raise LookupError(f"{self.name} does not define {seam}")
        below = [d for d in place.decorator_list if not _is(d, OUTERMOST)]
        line = below[0].lineno if below else place.lineno
        self._insert(line, f'{" " * place.col_offset}@seam("{seam}")\n')
        return True

    def imported_from(self, name: str) -> str | None:
        """The module from which this one imports ``name``."""
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return node.module
        return None

    def borrow(self, seam: Seam, borrowed: Borrowed) -> None:
        """Wrap what this file imports from elsewhere, after its imports."""
        imports = [n for n in self.tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
        line = (imports[-1].end_lineno or 0) + 1
        why = "# Of another package, wrapped where vLLM uses it."
        text = f'\n{why}\nseam("{seam}")(\n    {borrowed.holder}\n)\n'
        self._insert(line, text)

    def patched(self) -> str:
        """The text with all insertions, and the import that they need."""
        self._insert(self._place_of_import(), IMPORT)
        lines = self.original.splitlines(keepends=True)
        for line, text in sorted(self._inserted.items(), reverse=True):
            lines.insert(line - 1, text)
        return "".join(lines)

    def _insert(self, line: int, text: str) -> None:
        # Imports end where what follows them begins: what is inserted last goes first there.
        self._inserted[line] = text + self._inserted.get(line, "")

    def _place_of_import(self) -> int:
        ours = IMPORT.split()[1]
        statements = self.tree.body
        vllm = [n for n in statements if isinstance(n, ast.ImportFrom) and _is_vllm(n.module)]
        # "import …" comes before "from … import": where there are no others, after these.
        plain = [n for n in statements if isinstance(n, ast.Import) and _is_vllm(n.names[0].name)]
        if not vllm and not plain:
            raise LookupError(f"{self.name} imports nothing from vLLM")
        for node in vllm:
            if (node.module or "") > ours:
                return node.lineno
        return ((vllm or plain)[-1].end_lineno or 0) + 1


def _is_vllm(module: str | None) -> bool:
    return (module or "").startswith("vllm.")


def _is(decorator: ast.expr, names: set[str]) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id in names


def _only(body: list[ast.stmt], kind: type[Definition], name: str) -> Definition | None:
    found: Iterator[Definition] = (n for n in body if isinstance(n, kind) and n.name == name)
    first, second = next(found, None), next(found, None)
    if second is not None:
        raise LookupError(f"{name} is defined twice, in lines {second.lineno} and before")
    return first
