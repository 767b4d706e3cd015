# SPDX-License-Identifier: Apache-2.0
"""``vllm run-batch`` with a policy: the lines of a file name priorities and service tiers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.serve.program import run
from tests.serve.server import ARGUMENTS, MODEL, STRICT

pytestmark = [pytest.mark.server, pytest.mark.slow]

# What a line asks for, and the tier that serves it; None for a line that is refused.
LINES: list[tuple[dict[str, Any], str | None]] = [
    ({}, "default"),
    ({"service_tier": "flex"}, "flex"),
    ({"service_tier": "priority"}, "priority"),
    ({"priority": 7}, "flex"),
    ({"priority": -7, "service_tier": "flex"}, "default"),
    ({"service_tier": "cheap"}, "default"),
    ({"extra_body": {"priority": 7}}, "flex"),
    ({"extra_body": {"service_tier": "flex"}}, "flex"),
    ({"priority": 1, "extra_body": {"priority": 7}}, None),
]


def line(number: int, fields: dict[str, Any]) -> str:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello " * 200}],
        "max_tokens": 6,
        "temperature": 0,
    }
    request = {"custom_id": f"{number}", "method": "POST", "url": "/v1/chat/completions"}
    return json.dumps(request | {"body": body | fields})


@pytest.mark.covers("vllm run-batch", "eager")
def test_each_line_is_served_in_its_tier(tiny_model: Path, tmp_path: Path) -> None:
    asked, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text("\n".join(line(n, fields) for n, (fields, _) in enumerate(LINES)))
    command = ["-m", "vllm.entrypoints.cli.main", "run-batch", "-i", str(asked)]
    command += ["-o", str(answered), "--model", str(tiny_model), "--served-model-name", MODEL]
    run(*command, *ARGUMENTS, *STRICT)
    lines = [json.loads(text) for text in answered.read_text().splitlines()]
    assert [int(line["custom_id"]) for line in lines] == list(range(len(LINES)))
    texts = set()
    for (_, tier), answer in zip(LINES, lines, strict=True):
        if tier is None:
            assert answer["response"]["status_code"] == 400
            assert answer["error"]["error"]["param"] == "extra_body.priority"
        else:
            assert answer["response"]["status_code"] == 200
            assert answer["response"]["body"]["service_tier"] == tier
            texts.add(answer["response"]["body"]["choices"][0]["message"]["content"])
    assert len(texts) == 1, "the tier changes the answer"
