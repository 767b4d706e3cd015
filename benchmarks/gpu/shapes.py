# SPDX-License-Identifier: Apache-2.0
"""Models of real size for a GPU: a configuration and a tokenizer, weights are made while loading.

Their tokens mean nothing and depend on little, so they are for times and not for equality.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.models.model import Shape, config
from benchmarks.models.tokenizer import BOS, EOS, PAD, write_tokenizer

VOCAB, MAX_TOKENS = 32000, 32768
MIXTRAL = Shape(4096, 32, 32, 8, 128, 14336, 8, 2, "bfloat16", VOCAB, MAX_TOKENS)
QWEN3 = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "vocab_size": VOCAB,
    "max_position_embeddings": MAX_TOKENS,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "dtype": "bfloat16",
}
TINY = Shape(64, 2, 4, 2, 32, 128, 4, 2, "bfloat16", VOCAB, MAX_TOKENS)
MODELS: dict[str, dict[str, Any]] = {
    "mixtral-8x7b": config(MIXTRAL),
    "qwen3-30b-a3b": QWEN3,
    "tiny": config(TINY),  # to try the rest on any machine
}


def write(name: str, out: Path, layers: int | None = None) -> Path:
    """Write the folder of a model without weights, and return it.

    Args:
        name: a key of MODELS.
        out: the folder.
        layers: instead of all; a smaller model with layers of the same size.
    """
    data = dict(MODELS[name])
    if layers is not None:
        data["num_hidden_layers"] = layers
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(data, indent=2) + "\n")
    write_tokenizer(out, VOCAB, MAX_TOKENS)
    return out
