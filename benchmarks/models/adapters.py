# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters for the tiny dense model, in PEFT's layout, strong enough to change answers."""

import json
import zlib
from pathlib import Path

from benchmarks.models.model import SHAPES

RANK = 8
SPREAD = 0.3


def make_adapter(base: str, seed: int, out_dir: Path | str) -> Path:
    """Make a seeded adapter of the attention of model ``base``; return the folder."""
    import torch
    from safetensors.torch import save_file

    shape, out = SHAPES[base], Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    sizes = {
        "q_proj": (shape.hidden, shape.heads * shape.head_dim),
        "v_proj": (shape.hidden, shape.kv_heads * shape.head_dim),
        "o_proj": (shape.heads * shape.head_dim, shape.hidden),
    }
    tensors = {}
    for layer in range(shape.layers):
        for module, (inputs, outputs) in sizes.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) ^ seed)
            for part, size in (("lora_A", (RANK, inputs)), ("lora_B", (outputs, RANK))):
                weight = torch.empty(size).normal_(0.0, SPREAD, generator=generator)
                tensors[f"{name}.{part}.weight"] = weight
    save_file(tensors, out / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": RANK,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(sizes),
    }
    (out / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return out
