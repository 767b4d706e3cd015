# SPDX-License-Identifier: Apache-2.0
"""Where a configuration is read from: JSON, or a file of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_qllm.config.regular_file import read_text
from vllm_qllm.config.rule import ConfigError, check, show

# Thousands of times what a configuration needs.
MAX_BYTES = 2**20

Source = str | Path | Mapping[str, Any] | None


def read(source: Source) -> Mapping[str, Any]:
    """What it holds.

    Args:
        source: None, a mapping, JSON text (starting with ``{``) or the path of a JSON file.

    Raises:
        ConfigError: an unreadable file, malformed JSON, or JSON that is not an object.
    """
    if source is None:
        return {}
    if isinstance(source, Mapping):
        return source
    text = str(source)
    origin = "--priority-config"
    if not text.lstrip().startswith("{"):
        origin = text
        try:
            text = read_text(text, MAX_BYTES)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"priority config: cannot read {show(origin)} ({error}); allowed: JSON text that "
                "starts with '{', or the path of a JSON file"
            ) from error
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"priority config: {origin} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"priority config: {origin} holds {type(data).__name__}; allowed: an object"
        )
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no field is given twice."""
    given = dict(pairs)
    if len(given) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        check(False, "field", twice, "each field once")
    return given
