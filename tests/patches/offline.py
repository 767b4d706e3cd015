# SPDX-License-Identifier: Apache-2.0
"""A script: what this interpreter's vLLM answers, with no option of ours. Prints JSON.

Arguments: a model, and prompts as JSON lists of token ids.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec


def main(model: str, prompts: list[list[int]], max_tokens: int) -> None:
    """Generate greedily and print which vLLM that was, and each prompt's tokens."""
    import vllm

    llm = vllm.LLM(model, dtype="float32", enforce_eager=True, max_model_len=2048, seed=0)
    params = vllm.SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, logprobs=0)
    answers = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
    report = {
        "vllm": vllm.__file__,
        "vllm_qllm": find_spec("vllm_qllm") is not None,
        "loaded": "vllm_qllm.seams" in sys.modules,
        "tokens": [list(answer.outputs[0].token_ids) for answer in answers],
        "logprobs": [
            [next(iter(step.values())).logprob for step in answer.outputs[0].logprobs or []]
            for answer in answers
        ],
    }
    print("\n" + json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
