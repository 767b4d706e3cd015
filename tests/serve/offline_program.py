# SPDX-License-Identifier: Apache-2.0
"""A user's program: urgent and best-effort prompts in one ``LLM``. Prints what came of it as JSON.

python tests/serve/offline_program.py MODEL
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import BeamSearchParams

from vllm_qllm import LLM

GREEDY = SamplingParams(max_tokens=4, temperature=0, ignore_eos=True, logprobs=0)


def prompts(count: int, length: int) -> list[Any]:
    rng = random.Random(length)
    return [{"prompt_token_ids": rng.choices(range(250), k=length)} for _ in range(count)]


def tokens(output: Any) -> list[int]:
    return list(output.outputs[0].token_ids)


def main(model: str) -> None:
    llm = LLM(
        model,
        priority_policy="strict",
        dtype="float32",
        enforce_eager=True,
        max_model_len=2048,
        max_num_batched_tokens=512,
        enable_prefix_caching=False,
        disable_log_stats=False,
    )
    many, few = prompts(12, 1900), prompts(2, 40)
    # The urgent ones come last: without classes they would also be answered last.
    mixed = llm.generate([*many, *few], GREEDY, priority=[5] * 12 + [0] * 2, use_tqdm=False)
    alone = [llm.generate(prompt, GREEDY, use_tqdm=False)[0] for prompt in [*many, *few]]
    long, short = ([{"role": "user", "content": "hello" * n}] for n in (300, 3))
    chats = llm.chat([long, short], GREEDY, priority=[5, 0], use_tqdm=False)
    chats_alone = [llm.chat(chat, GREEDY, use_tqdm=False)[0] for chat in (long, short)]
    beams = [
        llm.beam_search(few, BeamSearchParams(beam_width=width, max_tokens=4, ignore_eos=True))
        for width in (1, 2)
    ]
    times = [output.metrics.first_token_ts for output in mixed]
    answers = {
        "mixed": [tokens(output) for output in mixed],
        "alone": [tokens(output) for output in alone],
        "best effort answered last": max(times[:12]),
        "urgent answered last": max(times[12:]),
        "chats": [tokens(output) for output in chats],
        "chats alone": [tokens(output) for output in chats_alone],
        # vLLM's beams begin with their prompt.
        "best beam": [output.sequences[0].tokens[-4:] for output in beams[0]],
        "beams": [len(output.sequences) for output in beams[1]],
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1])
