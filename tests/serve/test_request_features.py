# SPDX-License-Identifier: Apache-2.0
"""While steps are suspended, every feature of a request gives the answer of an idle server."""

from __future__ import annotations

import asyncio

import pytest

from tests.serve.features import BEAM_SEARCH, QUESTIONS
from tests.serve.rivals import Question, contest
from tests.serve.server import Server

pytestmark = pytest.mark.server

ALL = [
    pytest.param(
        question,
        id=name,
        marks=[pytest.mark.covers(feature, "eager", suspended=True) for feature in features],
    )
    for name, features, question in QUESTIONS
]


@pytest.mark.parametrize("question", ALL)
def test_while_its_steps_are_suspended(server: Server, question: Question) -> None:
    asyncio.run(contest(server, question, "flex"))


@pytest.mark.parametrize("question", ALL)
def test_on_top_of_suspended_steps(server: Server, question: Question) -> None:
    asyncio.run(contest(server, question, "priority"))


# It has no class of its own to be best effort in: vLLM gives every beam the priority 0.
@pytest.mark.covers("Beam search", "eager")
@pytest.mark.parametrize(
    "question", [pytest.param(question, id=name) for name, question in BEAM_SEARCH]
)
def test_a_beam_search_on_top_of_suspended_steps(server: Server, question: Question) -> None:
    asyncio.run(contest(server, question, "default"))
