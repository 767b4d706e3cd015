# SPDX-License-Identifier: Apache-2.0
"""A tiny model of each architecture that people serve, made on disk with no download.

    python -m benchmarks.families NAME OUT_DIR

| name              | what it adds to the plain case                                  |
|-------------------|-----------------------------------------------------------------|
| tiny-qwen2-moe    | a shared expert beside the routed ones                          |
| tiny-qwen3-moe    | normalised queries and keys                                     |
| tiny-olmoe        | many small experts                                              |
| tiny-gpt-oss      | sliding windows in every second layer, attention sinks, biases  |
| tiny-deepseek-v2  | latent attention (MLA), a dense first layer                     |

Architecture and names of weights are those of transformers; the spread of the weights is ours, so
that outputs depend on the whole context (see ``benchmarks.models``).
"""

import argparse
import math
import zlib
from pathlib import Path
from typing import Any

from benchmarks.models.tokenizer import BOS, EOS, PAD, write_tokenizer

VOCAB, MAX_TOKENS = 288, 4096
GAIN = 1.4
BIAS_SPREAD = 0.02

COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 128,
    "max_position_embeddings": MAX_TOKENS,
    "tie_word_embeddings": False,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny-qwen2-moe": (
        "qwen2_moe",
        {
            **EXPERTS,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 128,
            "num_attention_heads": 2,
        },
    ),
    "tiny-qwen3-moe": ("qwen3_moe", {**EXPERTS, "moe_intermediate_size": 64}),
    "tiny-olmoe": (
        "olmoe",
        {
            "num_experts": 16,
            "num_experts_per_tok": 4,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
    ),
    "tiny-gpt-oss": (
        "gpt_oss",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "intermediate_size": 64,
            "sliding_window": 64,
        },
    ),
    "tiny-deepseek-v2": (
        "deepseek_v2",
        {
            "num_key_value_heads": 4,
            "kv_lora_rank": 512,
            "q_lora_rank": None,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "topk_method": "greedy",
        },
    ),
}


def make_family(name: str, out_dir: Path | str, dtype: str = "float32") -> Path:
    """Make the named model in ``out_dir`` and return the folder.

    Args:
        name: one of ``FAMILIES``.
        out_dir: replaced file by file when it exists.
        dtype: of the weights, a name of torch's.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if name not in FAMILIES:
        raise ValueError(f"no family named {name!r}; there are: {', '.join(FAMILIES)}")
    model_type, sizes = FAMILIES[name]
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.for_model(model_type, **(COMMON | sizes))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, weight in model.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(parameter_name.encode()))
            if "norm" in parameter_name:
                weight.fill_(1.0)
            elif weight.dim() < 2 or parameter_name.endswith("bias"):
                weight.normal_(0.0, BIAS_SPREAD, generator=generator)
            elif "embed" in parameter_name:
                weight.normal_(0.0, 0.5, generator=generator)
            else:
                spread = GAIN / math.sqrt(weight.shape[-1])
                weight.normal_(0.0, spread, generator=generator)
    model.to(getattr(torch, dtype)).save_pretrained(out)
    write_tokenizer(out, VOCAB, MAX_TOKENS)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("name", choices=FAMILIES)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args()
    print(make_family(arguments.name, arguments.out_dir))
