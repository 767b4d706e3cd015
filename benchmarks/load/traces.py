# SPDX-License-Identifier: Apache-2.0
"""Recorded arrivals and lengths: Azure's traces of 2023 (CSV) and Mooncake's (JSON lines).

``benchmarks/traces/README.md`` says where they are to be had, and under which licence.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path

# Columns of Azure's files; fields of Mooncake's, whose times are milliseconds.
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MOONCAKE = ("timestamp", "input_length", "output_length")


class BadTrace(ValueError):
    """A trace that is missing or cannot be read. The message names the file and the line."""


@dataclass(frozen=True)
class Entry:
    """One request of a trace: seconds since the first one, tokens of prompt and answer."""

    at: float
    prompt: int
    output: int


@dataclass(frozen=True)
class Traces:
    """Where traces are: a folder, and files to take in place of the one a class would replay."""

    folder: Path
    instead: Mapping[str, Path] = field(default_factory=dict)

    def path(self, kind: str, name: str) -> Path:
        """The file for a class whose scenario names ``name``."""
        return self.instead.get(kind, self.folder / name)


def azure_time(text: str) -> float:
    """Seconds of ``2023-11-16 18:15:46.6805900``, whose fraction Python reads to six digits."""
    whole, _, fraction = text.partition(".")
    return datetime.fromisoformat(whole).timestamp() + float(f"0.{fraction or 0}")


def azure(path: Path) -> Iterator[tuple[int, float, int, int]]:
    """Line number, seconds and lengths of each request."""
    with path.open(newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in AZURE if name not in (reader.fieldnames or ())]
        if missing:
            raise BadTrace(f"{path}: no column {', '.join(missing)}; Azure's have {AZURE}")
        for row in reader:
            try:
                time, prompt, output = (row[name] for name in AZURE)
                yield reader.line_num, azure_time(time), int(prompt), int(output)
            except (ValueError, TypeError, AttributeError) as error:
                raise BadTrace(f"{path}, line {reader.line_num}: {error}") from error


def mooncake(path: Path) -> Iterator[tuple[int, float, int, int]]:
    """Line number, seconds and lengths of each request."""
    with path.open() as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                time, prompt, output = (row[name] for name in MOONCAKE)
                yield number, float(time) / 1e3, int(prompt), int(output)
            except KeyError as error:
                raise BadTrace(f"{path}, line {number}: no field {error}") from error
            except (ValueError, TypeError) as error:
                raise BadTrace(f"{path}, line {number}: {error}") from error


READERS = {".csv": azure, ".jsonl": mooncake}


@cache
def read(path: Path) -> tuple[Entry, ...]:
    """All requests of a trace file, whose kind goes by its suffix.

    Raises:
        BadTrace: no such file, a suffix of no known kind, a line that is not as it should be, times
            that go back, lengths below zero, or fewer than two requests.
    """
    if path.suffix not in READERS:
        raise BadTrace(f"{path}: not a trace; known are {', '.join(READERS)}")
    entries: list[Entry] = []
    first = None
    try:
        for line, time, prompt, output in READERS[path.suffix](path):
            first = time if first is None else first
            if entries and time - first < entries[-1].at:
                raise BadTrace(f"{path}, line {line}: earlier than the line before it")
            if prompt < 0 or output < 0:
                raise BadTrace(f"{path}, line {line}: a length below 0")
            entries.append(Entry(time - first, prompt, output))
    except OSError as error:
        raise BadTrace(
            f"{path}: {error.strerror}; benchmarks/traces/README.md says where traces are to be had"
        ) from error
    except UnicodeDecodeError as error:
        raise BadTrace(f"{path}: {error}") from error
    if len(entries) < 2 or entries[-1].at == 0.0:
        raise BadTrace(f"{path}: fewer than two requests at different times")
    return tuple(entries)
