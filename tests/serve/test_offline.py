# SPDX-License-Identifier: Apache-2.0
"""``from vllm_qllm import LLM``: priorities in generate and chat, and beam search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.serve.program import run

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.covers("LLM.generate and LLM.chat", "eager")
@pytest.mark.covers("Beam search", "eager")
def test_urgent_prompts_come_first_and_answers_are_the_same(tiny_model: Path) -> None:
    program = Path(__file__).with_name("offline_program.py")
    printed = run(str(program), str(tiny_model)).splitlines()
    # vLLM prints to the same place.
    said = json.loads(next(line for line in printed if line.startswith("{")))
    assert said["mixed"] == said["alone"]
    assert len({tuple(tokens) for tokens in said["mixed"]}) > 10, "answers depend on their prompts"
    assert said["urgent answered last"] < said["best effort answered last"]
    assert said["chats"] == said["chats alone"]
    assert said["best beam"] == said["alone"][-2:]
    assert said["beams"] == [2, 2]
