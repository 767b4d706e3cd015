# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of a prompt are put together over all of its steps, whatever runs between."""

from __future__ import annotations

import pytest

from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import assert_same, prompt


@pytest.mark.covers("Prompt logprobs", "eager", suspended=True)
def test_prompt_logprobs_of_a_prompt_in_chunks(engine_for: EngineFor) -> None:
    engine = engine_for()
    specs = [(prompt(1, 600), 3, BE), (prompt(2, 300), 3, LS), (prompt(3, 40), 3, LS)]
    expected = [engine.alone(tokens, out, prompt_logprobs=1) for tokens, out, _ in specs]
    assert [len(e.prompt_logprobs) for e in expected] == [599, 299, 39]
    ids = [engine.add(*specs[0], prompt_logprobs=1)]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        # In the first chunk of the long prompt, and in its second.
        if stops in (2, 7):
            ids.append(engine.add(*specs[len(ids)], prompt_logprobs=1))

    engine.on_suspended = arrive
    engine.run()
    assert len(ids) == 3
    for request_id, reference in zip(ids, expected, strict=True):
        result = engine.results[request_id]
        assert_same(result, reference, request_id)
        assert result.prompt_logprobs == pytest.approx(reference.prompt_logprobs, abs=1e-4)
    engine.reset()
