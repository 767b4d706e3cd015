# SPDX-License-Identifier: Apache-2.0
"""Trace files: CSV as of the Azure LLM inference traces, JSON lines as of Mooncake's.

Times count from the first request of the file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from vllm_qllm.capacity.errors import CapacityError, check
from vllm_qllm.capacity.workload import Arrival

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MOONCAKE = ("timestamp", "input_length", "output_length")

Row = tuple[float, int, int]


def _azure(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        found = tuple(reader.fieldnames or ())
        check(set(AZURE) <= set(found), f"{path}: columns", found, ", ".join(AZURE))
        for line in reader:
            yield _row(path, reader.line_num, line, AZURE, _clock)


def _clock(text: Any) -> float:
    # Seven decimals, of which datetime takes six.
    whole, _, fraction = str(text).partition(".")
    digits = fraction.rstrip("Z").partition("+")[0]
    return datetime.fromisoformat(whole).timestamp() + (float(f"0.{digits}") if digits else 0.0)


def _mooncake(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    fields = json.loads(line)
                except ValueError as error:
                    raise CapacityError(f"capacity: {path}:{number} is no JSON: {error}") from error
                check(isinstance(fields, dict), f"{path}:{number}", line.strip(), "an object")
                yield _row(path, number, fields, MOONCAKE, lambda ms: float(ms) / 1000)


def _row(
    path: Path,
    number: int,
    fields: dict[str, Any],
    names: tuple[str, str, str],
    clock: Callable[[Any], float],
) -> Row:
    at, prompt, output = (fields.get(name) for name in names)
    try:
        row = clock(at), int(prompt), int(output)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise CapacityError(
            f"capacity: {path}:{number} holds {dict(zip(names, (at, prompt, output), strict=True))}"
            f" ({error}); allowed: a time and two numbers of tokens"
        ) from error
    check(
        row[1] >= 0 and row[2] >= 0,
        f"{path}:{number}: {names[1]}, {names[2]}",
        row[1:],
        "numbers of tokens, 0 or more",
    )
    return row


def read(path: Path, level: int) -> list[Arrival]:
    """The requests of a file as class ``level``, in order of time.

    Requests that generate nothing, or from nothing, count as one token there.

    Raises:
        CapacityError: the file is missing, empty, or a line of it is malformed.
    """
    reader = _mooncake if path.suffix == ".jsonl" else _azure
    try:
        rows = sorted(reader(path))
    except (OSError, UnicodeDecodeError) as error:
        raise CapacityError(f"capacity: cannot read the trace {path} ({error})") from error
    check(bool(rows), f"{path}", "empty", "a trace of at least one request")
    began = rows[0][0]
    return [(at - began, level, max(1, prompt), max(1, output)) for at, prompt, output in rows]
