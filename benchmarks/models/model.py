# SPDX-License-Identifier: Apache-2.0
"""Models made on disk, with no download: config, byte-level tokenizer, seeded random weights.

    python -m benchmarks.models NAME OUT_DIR

| name          | parameters | layers | hidden | experts       | dtype    | made for            |
|---------------|------------|--------|--------|---------------|----------|---------------------|
| tiny-mixtral  | 0.53 M     | 4      | 64     | 4, two active | float32  | tests               |
| tiny-llama    | 0.23 M     | 4      | 64     | dense         | float32  | tests, no experts   |
| small-mixtral | 317 M      | 12     | 768    | 8, two active | bfloat16 | the demo            |
| mixtral-747m  | 747 M      | 16     | 1024   | 8, two active | bfloat16 | the benchmark       |
| wide-mixtral  | 710 M      | 2      | 1024   | 8, two active | bfloat16 | tests on a GPU      |

Random weights at the usual spread (0.02) give a model whose next token depends on its last token
alone, so that it repeats itself whatever the KV cache holds, and no test of equal tokens could
fail. Here every projection keeps the scale of its input, queries and keys are larger still, so that
attention picks out single tokens, and what the layers add outweighs the embedding: one changed
token anywhere in the prompt changes what follows.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.models.tokenizer import BOS, EOS, PAD, write_tokenizer

# Changes whenever the same Shape would give other files.
RECIPE = 1
MARKER = "made.json"


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of one model. ``experts`` = 0 means a dense (Llama) model, otherwise Mixtral."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inter: int
    experts: int
    active: int
    dtype: str
    vocab: int = 288
    max_tokens: int = 4096
    seed: int = 0


SHAPES = {
    # head_dim 32 is the smallest that vLLM's attention on CPU takes.
    "tiny-mixtral": Shape(64, 4, 4, 2, 32, 128, 4, 2, "float32"),
    "tiny-llama": Shape(64, 4, 4, 2, 32, 128, 0, 0, "float32"),
    "small-mixtral": Shape(768, 12, 12, 4, 64, 1344, 8, 2, "bfloat16"),
    "mixtral-747m": Shape(1024, 16, 16, 4, 64, 1792, 8, 2, "bfloat16"),
    "wide-mixtral": Shape(1024, 2, 16, 4, 64, 14336, 8, 2, "bfloat16", max_tokens=8192),
}

# Gains: the spread of a projection's output for an input of spread one.
QUERY_KEY_GAIN = 1.6
VALUE_GAIN = 1.5
OUTPUT_GAIN = 1.5
MLP_GAIN = 1.2
EMBEDDING_SPREAD = 0.5


def config(shape: Shape) -> dict[str, Any]:
    """What goes into ``config.json``."""
    moe = shape.experts > 0
    return {
        "architectures": ["MixtralForCausalLM" if moe else "LlamaForCausalLM"],
        "model_type": "mixtral" if moe else "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inter,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.max_tokens,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "dtype": shape.dtype,
        **(
            {"num_local_experts": shape.experts, "num_experts_per_tok": shape.active} if moe else {}
        ),
    }


def matrices(shape: Shape) -> Iterator[tuple[str, int, int, float]]:
    """Every weight matrix: name, rows (outputs), columns (inputs), gain."""
    hidden, inter = shape.hidden, shape.inter
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # An embedding row is looked up, not summed over: undo the scaling by its number of columns.
    yield "model.embed_tokens.weight", shape.vocab, hidden, EMBEDDING_SPREAD * hidden**0.5
    yield "lm_head.weight", shape.vocab, hidden, 2.0
    for i in range(shape.layers):
        layer = f"model.layers.{i}"
        yield f"{layer}.self_attn.q_proj.weight", query, hidden, QUERY_KEY_GAIN
        yield f"{layer}.self_attn.k_proj.weight", key, hidden, QUERY_KEY_GAIN
        yield f"{layer}.self_attn.v_proj.weight", key, hidden, VALUE_GAIN
        yield f"{layer}.self_attn.o_proj.weight", hidden, query, OUTPUT_GAIN
        if shape.experts:
            moe = f"{layer}.block_sparse_moe"
            yield f"{moe}.gate.weight", shape.experts, hidden, 1.0
            for e in range(shape.experts):
                yield f"{moe}.experts.{e}.w1.weight", inter, hidden, MLP_GAIN
                yield f"{moe}.experts.{e}.w3.weight", inter, hidden, MLP_GAIN
                yield f"{moe}.experts.{e}.w2.weight", hidden, inter, MLP_GAIN
        else:
            yield f"{layer}.mlp.gate_proj.weight", inter, hidden, MLP_GAIN
            yield f"{layer}.mlp.up_proj.weight", inter, hidden, MLP_GAIN
            yield f"{layer}.mlp.down_proj.weight", hidden, inter, MLP_GAIN


def write_weights(shape: Shape, path: Path) -> None:
    """Seeded weights. Each matrix has a seed of its own, so a change of one leaves the others."""
    import torch
    from safetensors.torch import save_file

    dtype = getattr(torch, shape.dtype)
    tensors = {"model.norm.weight": torch.ones(shape.hidden, dtype=dtype)}
    for i in range(shape.layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{norm}.weight"] = torch.ones(shape.hidden, dtype=dtype)
    for name, rows, columns, gain in matrices(shape):
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) ^ shape.seed)
        weight = torch.empty(rows, columns).normal_(0.0, gain / columns**0.5, generator=generator)
        tensors[name] = weight.to(dtype)
    save_file(tensors, path, metadata={"format": "pt"})


def make(name: str, out_dir: Path | str) -> Path:
    """Make the named model in ``out_dir`` unless it is there already; return the folder.

    A model counts as there when its marker names the same recipe. Files are written beside
    ``out_dir`` and moved at the end, so an interrupted run leaves no half a model.
    """
    if name not in SHAPES:
        raise ValueError(f"no model named {name!r}; there are: {', '.join(SHAPES)}")
    shape, out = SHAPES[name], Path(out_dir)
    recipe = json.dumps(
        {
            "recipe": RECIPE,
            "config": config(shape),
            "matrices": list(matrices(shape)),
            "seed": shape.seed,
        }
    )
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    marker = out / MARKER
    if marker.exists() and json.loads(marker.read_text()).get("recipe") == digest:
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        made = Path(folder) / "model"
        made.mkdir()
        (made / "config.json").write_text(json.dumps(config(shape), indent=2) + "\n")
        write_tokenizer(made, shape.vocab, shape.max_tokens)
        write_weights(shape, made / "model.safetensors")
        (made / MARKER).write_text(json.dumps({"name": name, "recipe": digest}) + "\n")
        if out.exists():
            shutil.rmtree(out)
        os.replace(made, out)
    return out


def parameters(shape: Shape) -> int:
    """Number of weights in the matrices."""
    return sum(rows * columns for _, rows, columns, _ in matrices(shape))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", choices=SHAPES)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args()
    print(make(arguments.name, arguments.out_dir))
