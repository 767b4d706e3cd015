# SPDX-License-Identifier: Apache-2.0
"""Finds symbols in Python files without importing them, and tells what of them matters.

Formatting, comments, docstrings and the annotations of parameters are not part of a digest, and
neither is the decorator that ``patches/`` adds.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef
# ctx and type_comment say nothing; the others exist in some versions of Python only.
_IGNORED = {"ctx", "type_comment", "type_params", "kind", "annotation", "returns"}


class Source:
    """The packages below one directory, each file parsed when it is first asked for.

    Args:
        root: a ``site-packages``, an unpacked wheel, or a checkout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tree = functools.cache(self._parse)

    def _parse(self, module: str) -> ast.Module | None:
        path = self.root.joinpath(*module.split("."))
        for file in (path.with_name(path.name + ".py"), path / "__init__.py"):
            if file.is_file():
                return ast.parse(file.read_bytes())
        return None

    def has(self, package: str) -> bool:
        """Whether a package or module is here."""
        return self._tree(package) is not None

    def find(self, symbol: str) -> list[ast.AST]:
        """Everything that defines ``module:name`` or ``module:Class.name``; empty: it is gone.

        An attribute that instances get in ``__init__`` is found there, and only otherwise in
        other methods.
        """
        module, _, path = symbol.partition(":")
        owner, _, name = path.rpartition(".")
        tree = self._tree(module)
        if tree is None:
            return []
        if not path:
            return [tree]
        if not owner:
            return list(_named(tree.body, name))
        for found in _named(tree.body, owner):
            if isinstance(found, ast.ClassDef):
                return list(_named(found.body, name)) or list(_set_on_self(found, name))
        return []


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module or class, and of the branches in it."""
    for statement in body:
        yield statement
        for branch in ("body", "orelse", "finalbody"):
            if isinstance(statement, (ast.If, ast.Try, ast.With)):
                yield from _statements(getattr(statement, branch, ()))


def _named(body: Iterable[ast.stmt], name: str) -> Iterator[ast.AST]:
    for statement in _statements(body):
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names = [statement.name]
            case ast.Import() | ast.ImportFrom():
                names = [a.asname or a.name for a in statement.names]
            case ast.Assign():
                names = [t.id for t in statement.targets if isinstance(t, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=target)):
                names = [target]
            case _:
                names = []
        if name in names:
            yield statement


def _set_on_self(owner: ast.ClassDef, name: str) -> Iterator[ast.AST]:
    methods = [m for m in owner.body if isinstance(m, Function)]
    constructors = [m for m in methods if m.name == "__init__"]
    for group in (constructors, methods):
        found = [s for method in group for s in ast.walk(method) if _sets(s, name)]
        if found:
            yield from found
            return


def _sets(statement: ast.AST, name: str) -> bool:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            targets += target.elts if isinstance(target, ast.Tuple) else [target]
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return any(
        isinstance(t, ast.Attribute)
        and t.attr == name
        and isinstance(t.value, ast.Name)
        and t.value.id == "self"
        for t in targets
    )


def parameters(function: Function) -> list[str]:
    """As they are written in a ``def``, without annotations."""
    args = function.args
    positional = args.posonlyargs + args.args
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    written = [_parameter(*of) for of in zip(positional, defaults, strict=True)]
    if args.posonlyargs:
        written.insert(len(args.posonlyargs), "/")
    if args.vararg:
        written.append(f"*{args.vararg.arg}")
    elif args.kwonlyargs:
        written.append("*")
    written += [_parameter(*of) for of in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    if args.kwarg:
        written.append(f"**{args.kwarg.arg}")
    return written


def _parameter(parameter: ast.arg, default: ast.expr | None) -> str:
    return parameter.arg if default is None else f"{parameter.arg}={ast.unparse(default)}"


def code(node: ast.AST) -> str:
    """A definition without formatting, comments and docstring."""
    if isinstance(node, Function | ast.ClassDef) and ast.get_docstring(node) is not None:
        node = copy.copy(node)
        node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(node)


def body_digest(nodes: Iterable[ast.AST]) -> str:
    """Of what functions or classes do."""
    return _digest(_shape(node) for node in nodes)


def declaration_digest(nodes: Iterable[ast.AST]) -> str:
    """Of how a name is declared: what kind of thing, annotated how, made by which call."""
    return _digest(_declaration(node) for node in nodes)


def _digest(shapes: Iterable[Any]) -> str:
    # Sorted: the order of several definitions is formatting.
    text = repr(sorted(map(repr, shapes)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _declaration(node: ast.AST) -> Any:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            bases = _shape(node.bases) if isinstance(node, ast.ClassDef) else None
            return type(node).__name__, _shape(_decorators(node)), bases
        case ast.Import() | ast.ImportFrom():
            return "import"
        case ast.AnnAssign():
            return "annotated", _shape(node.annotation), _made(node.value)
        case ast.Assign():
            return "set", _made(node.value)
    return type(node).__name__


def _made(value: ast.expr | None) -> Any:
    # What it is made from changes with every feature; what it is hardly ever.
    return _shape(value.func if isinstance(value, ast.Call) else value)


def _decorators(node: Function | ast.ClassDef) -> list[ast.expr]:
    return [
        d
        for d in node.decorator_list
        if not (isinstance(d, ast.Call) and isinstance(d.func, ast.Name) and d.func.id == "seam")
    ]


def _shape(node: Any) -> Any:
    """The syntax tree in plain tuples that are equal under every version of Python."""
    if isinstance(node, list):
        return tuple(map(_shape, node))
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, Function | ast.ClassDef):
        fields["decorator_list"] = _decorators(node)
        if ast.get_docstring(node, clean=False) is not None:
            fields["body"] = node.body[1:]
    # Fields of a class keep their annotations: there they are what the class is.
    ignored = _IGNORED - {"annotation"} if isinstance(node, ast.AnnAssign) else _IGNORED
    return type(node).__name__, *(
        (name, _shape(value))
        for name, value in sorted(fields.items())
        if name not in ignored and value is not None and value != []
    )
