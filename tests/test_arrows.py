# SPDX-License-Identifier: Apache-2.0
"""Imports of the package run one way: no two folders, and no two files, reach each other.

Imports inside functions and those for types count: what a reader has to know is the same.
``python -m tests.test_arrows`` writes the floors that follow into ``docs/architecture.md``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import vllm_qllm

PACKAGE = Path(vllm_qllm.__file__).parent
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
Graph = dict[str, set[str]]
DOCUMENT = Path(__file__).parents[1] / "docs" / "architecture.md"
BEGIN, END = "<!-- floors -->", "<!-- /floors -->"


def imported(path: Path) -> Iterator[str]:
    """Files of the package that the one at ``path`` imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in FILES:
                name = name.rpartition(".")[0]
            if name:
                yield name


def by_file() -> Graph:
    return {name: set(imported(path)) - {name} for name, path in FILES.items()}


def by_folder() -> Graph:
    """The folders, and the files beside them, which stand for themselves."""
    found: Graph = {}
    for name, others in by_file().items():
        found.setdefault(room(name), set()).update(
            {room(other) for other in others if room(other) != room(name)}
        )
    return found


def room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def floors(graph: Graph) -> list[list[str]]:
    """Names by floor, the lowest first: what is on one imports only what is below it."""
    order = TopologicalSorter(graph)
    order.prepare()
    found = []
    while order.is_active():
        ready = sorted(order.get_ready())
        found.append(ready)
        order.done(*ready)
    return found


def picture() -> str:
    """Floors of the folders, and of the files of ``engine/``, the highest first."""
    inside = "vllm_qllm.engine."
    engine = {
        name: {other for other in others if other.startswith(inside)}
        for name, others in by_file().items()
        if name.startswith(inside)
    }
    folders = {
        name: {other for other in others if is_folder(other)}
        for name, others in by_folder().items()
        if is_folder(name)
    }
    rows = []
    for title, graph in (("the package's folders", folders), ("the files of engine/", engine)):
        rows += ["", f"    {title}"]
        for number, names in reversed(list(enumerate(floors(graph)))):
            rows.append(f"    {number}  " + " ".join(name.rpartition(".")[2] for name in names))
    return "\n".join(rows[1:])


def is_folder(name: str) -> bool:
    return (PACKAGE / name.rpartition(".")[2]).is_dir()


def written(text: str) -> str:
    """``text``, the document, with the floors in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{picture()}\n\n{END}{after}"


def circle(graph: Graph) -> list[str]:
    """One circle of it, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


@pytest.mark.parametrize("graph", [by_folder, by_file])
def test_there_is_no_circle(graph: Callable[[], Graph]) -> None:
    assert circle(graph()) == []


def test_a_circle_would_be_noticed() -> None:
    assert len(by_folder()) > 15
    assert by_folder()["vllm_qllm.engine"] >= {"vllm_qllm.policy", "vllm_qllm.kv"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_the_floors_are_those_of_the_document() -> None:
    assert written(DOCUMENT.read_text()) == DOCUMENT.read_text(), "python -m tests.test_arrows"


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
