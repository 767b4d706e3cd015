# SPDX-License-Identifier: Apache-2.0
"""The list of what is relied upon is complete, as far as the text of this package can tell.

It is read, not run, and types are not known: an attribute counts as vLLM's when this package
does not define it and no module that the file imports, and no built-in type, has it. So an
attribute of vLLM that has the name of one of ours is not noticed.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import io
import logging
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import vllm_qllm
from vllm_qllm import seams
from vllm_qllm.contract.dependency import BODY
from vllm_qllm.contract.moved import known
from vllm_qllm.contract.source import Source
from vllm_qllm.contract.uses import ALL

PACKAGE = Path(vllm_qllm.__file__).parent
TREES = {file: ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}
# The contract itself reads vLLM as text.
FILES = [file for file in TREES if "contract" not in file.relative_to(PACKAGE).parts]
# Kernels work on tensors, of which nothing is known here; the capacity model, the client for
# batches and fleets on Ray meet no object of vLLM (they do not even import it:
# tests/config/test_imports.py).
WITHOUT_OBJECTS = {"kernels", "capacity", "batch", "ray"}
FILES_WITH_OBJECTS = [f for f in FILES if not WITHOUT_OBJECTS & {*f.relative_to(PACKAGE).parts}]
SOURCE = Source(PACKAGE.parent)
# A custom op is named as its function, without underscore.
NAMES = {name for d in ALL for name in (d.name, d.name.lstrip("_"))}
SYMBOLS = {d.symbol for d in ALL}
OURS = ("vllm_qllm", "__future__")
NOT_OF_VLLM = {
    # what this package leaves on objects of vLLM
    "priority_arrived",
    "priority_controller",
    "priority_draining",
    "priority_enforcement",
    "priority_pool",
    "priority_log_probabilities",
    "priority_level",
    "priority_refusals",
    "priority_waiting",
    # of queue.Queue, NamedTuple, SharedMemory, pydantic, starlette, prometheus_client and argparse,
    # which give them to objects and not to classes, or are not imported where they are used
    "metadata",  # of dataclasses.Field
    "body_field",  # of fastapi's APIRoute, the next one of its ModelField
    "_type_adapter",
    "core_schema",  # of pydantic's TypeAdapter, as the next one
    "validator",
    "callback",  # of ExitStack
    "mutex",
    "_replace",
    "buf",
    "model_fields",
    "model_fields_set",
    "headers",
    "samples",
    "json",
    "kill",  # of multiprocessing
    *("_max_workers", "cancel", "done"),  # of concurrent.futures
    *("numel", "shape", "size"),  # of torch and numpy
    "hexdigest",  # of hashlib
    "cudaHostUnregister",  # of torch, built for CUDA
    *("model_validate", "scope", "url"),  # of pydantic and starlette
    *("annotation", "body_field", "field_info"),  # of pydantic and fastapi
    *("apply_defaults", "bind"),  # of inspect
    *("st_ino", "st_mtime_ns", "st_size"),  # of os.stat_result
    *("matches", "routes"),  # of starlette.routing
    *("set", "reset"),  # of contextvars.ContextVar
    *("do", "file", "hash"),  # of argparse.Namespace, as vllm_qllm.keys fills it
}


def ids(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Module and name of everything that is imported; name "" for a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def top(module: str) -> str:
    return module.partition(".")[0]


@functools.cache
def defined_here() -> set[str]:
    """Names of functions, classes, fields and attributes that this package gives its objects."""
    found = set()
    for tree in TREES.values():
        targets = [t for s in tree.body if isinstance(s, ast.Assign) for t in s.targets]
        found |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    for node in (n for tree in TREES.values() for n in ast.walk(tree)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name):
                found.add(name)
                for field in node.body:
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                        found.add(field.target.id)
                    if isinstance(field, ast.Assign):  # a member of an enumeration
                        found |= {t.id for t in field.targets if isinstance(t, ast.Name)}
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                found.add(name)
    return found


def of_others(tree: ast.AST) -> set[str]:
    """Attributes of built-in types, and of what a file imports from neither vLLM nor here."""
    owners = [v for v in vars(builtins).values() if isinstance(v, type)]
    owners += [types.FunctionType, types.ModuleType, io.TextIOWrapper, logging.Logger]
    found = {name for owner in owners for name in dir(owner)}
    for module, name in imports(tree):
        if top(module) in ("vllm", *OURS):
            continue
        imported = importlib.import_module(module)
        if name and not hasattr(imported, name):
            importlib.import_module(f"{module}.{name}")
        imported = getattr(imported, name) if name else imported
        # Of a module, also what its classes have: their objects are used, too.
        for value in (imported, *(vars(imported).values() if inspect.ismodule(imported) else ())):
            found |= set(dir(value)) if inspect.ismodule(value) or inspect.isclass(value) else set()
    return found


@pytest.mark.parametrize("file", FILES_WITH_OBJECTS, ids=ids)
def test_attributes_that_are_not_ours_are_listed(file: Path) -> None:
    tree = TREES[file]
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    used -= {name for name in used if name.startswith("__")}
    missing = used - defined_here() - of_others(tree) - NAMES - NOT_OF_VLLM
    assert not missing, f"not in vllm_qllm/contract/uses: {', '.join(sorted(missing))}"


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_imports_of_vllm_are_listed(file: Path) -> None:
    for module, name in imports(TREES[file]):
        if top(module) != "vllm":
            continue
        starts = (f"{module}:{name}.", f"{module}.{name}:") if name else (f"{module}:",)
        listed = f"{module}:{name}" in SYMBOLS or any(s.startswith(starts) for s in SYMBOLS)
        assert listed, f"vllm_qllm/contract/uses has nothing of {module}:{name}"


def overrides(installed: Source) -> Iterator[tuple[str, str]]:
    """Class of vLLM and name of everything that a class of this package defines again."""
    for tree in TREES.values():
        origin = {name: module for module, name in imports(tree) if top(module) == "vllm"}
        for owner in (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)):
            for base in (b.id for b in owner.bases if isinstance(b, ast.Name) and b.id in origin):
                for method in (m for m in owner.body if isinstance(m, ast.FunctionDef)):
                    symbol = f"{origin[base]}:{base}"
                    if method.name != "__init__" and installed.find(f"{symbol}.{method.name}"):
                        yield symbol, method.name


def test_overridden_methods_are_listed(installed: Path) -> None:
    found = list(overrides(Source(installed)))
    assert ("vllm.v1.core.sched.scheduler:Scheduler", "schedule") in found
    whole = {d.symbol for d in ALL if d.kind == BODY}
    for owner, name in found:
        assert owner in whole or f"{owner}.{name}" in SYMBOLS, f"{owner}.{name} is overridden"


@pytest.mark.parametrize("seam", seams.ALL, ids=str)
def test_seams_are_listed(seam: seams.Seam) -> None:
    owner = f"{seam.module}:{seam.owner}"
    symbol = f"{owner}.{seam.name}" if seam.owner else f"{owner}{seam.name}"
    # The __init__ of a dataclass has no text; its class does.
    assert symbol in SYMBOLS or (seam.name == "__init__" and owner in SYMBOLS)


def test_each_symbol_is_listed_once_and_known() -> None:
    assert [s for s, count in Counter(d.symbol for d in ALL).items() if count > 1] == []
    assert known().keys() == SYMBOLS


@pytest.mark.parametrize("dependency", ALL, ids=lambda d: d.symbol)
def test_the_place_of_use_exists(dependency: vllm_qllm.contract.dependency.Dependency) -> None:
    module, _, name = dependency.used_by.partition(":")
    full = f"vllm_qllm.{module}".removesuffix(".__init__")
    assert SOURCE.find(f"{full}:{name}"), f"{dependency.used_by} of {dependency.symbol} is gone"
    if dependency.kind != BODY:
        files = [f for f in FILES if ".".join(f.relative_to(PACKAGE.parent).parts).startswith(full)]
        name = dependency.name if dependency.name != "__init__" else dependency.owner
        assert any(name in f.read_text() for f in files), (
            f"{dependency.used_by} does not name {dependency.symbol}"
        )


def test_reasons_are_sentences() -> None:
    for dependency in ALL:
        assert dependency.why[0].isupper(), dependency
        assert dependency.why.endswith("."), dependency
