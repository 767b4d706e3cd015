# SPDX-License-Identifier: Apache-2.0
"""What can be configured, as Markdown: from the fields themselves, their rules and docstrings."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

from vllm_qllm.config.priority_class import PriorityClass
from vllm_qllm.config.priority_config import PriorityConfig
from vllm_qllm.config.rule import Rule

HEAD = """\
# Configuration

`--priority-config` takes JSON, or the path of a JSON file, with any of these fields:

    vllm serve MODEL --priority-policy strict --priority-config '{"reserved_kv": 0.05}'

A value that cannot be used ends the start with a sentence that names the field, the value and what
is allowed. `python -m vllm_qllm.config` prints this page."""


def render() -> str:
    """The page: fields of the configuration, and fields of a class."""
    parts = (
        HEAD,
        "## Fields",
        _table(PriorityConfig),
        "## Fields of a class, an entry of `classes`",
        _table(PriorityClass),
    )
    return "\n\n".join(parts)


def _table(record: type) -> str:
    meanings = dict(attributes(record))
    rows = ["| field | default | allowed | meaning |", "|---|---|---|---|"]
    for known in fields(record):
        cells = (f"`{known.name}`", _default(known), _allowed(known), meanings[known.name])
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def attributes(record: type) -> Iterator[tuple[str, str]]:
    """Names and meanings from the section "Attributes" of a class's docstring, as Markdown."""
    section = inspect.getdoc(record).partition("Attributes:\n")[2]  # type: ignore[union-attr]
    for entry in re.split(r"\n(?=    \S)", section.rstrip()):
        name, _, meaning = entry.strip().partition(": ")
        sentence = " ".join(meaning.replace("``", "`").split())
        yield name, sentence[:1].upper() + sentence[1:]


def _default(known: Field[Any]) -> str:
    if known.default is not MISSING:
        value = known.default
    elif known.default_factory is not MISSING:
        value = known.default_factory()
    else:
        return "required"
    if isinstance(value, tuple):
        return ", ".join(f"`{entry.name}`" for entry in value)
    return f"`{json.dumps(value)}`"


def _allowed(known: Field[Any]) -> str:
    rule = known.metadata.get("rule")
    return rule.allowed if isinstance(rule, Rule) else str(known.metadata["allowed"])
