# SPDX-License-Identifier: Apache-2.0
"""The GPU kernels compile for real devices, on a machine without one, and fit into them.

Triton brings ``ptxas`` and ``cuobjdump`` along, so this looks at machine code: registers spilt to
local memory and shared memory are what the device would use.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vllm_qllm.kernels.moe import triton_kernel
from vllm_qllm.kernels.moe.tile_shape import Shapes, TileShape, shapes_for
from vllm_qllm.kernels.moe.triton_work import GROUP, SUM_COLUMNS, SUM_WARPS

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
# Shared memory that one program can have, bytes, by compute capability.
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
# Types of arguments that no tensor of floats has.
TYPES = (
    dict.fromkeys(("pairs", "tile_expert", "tile_first", "tile_size"), "*i32")
    | dict.fromkeys(("tiles", "counters", "local_ids"), "*i32")
    | dict.fromkeys(("tokens", "tail", "H", "I"), "i32")
    | {"flag": "*i64", "number": "i64", "weights": "*fp32"}
)


class Compiled(NamedTuple):
    """A kernel's machine code and what it takes: registers a thread, bytes of the others."""

    ptx: str
    cubin: bytes
    registers: int
    stack: int
    local: int
    shared: int


def compile_kernel(
    name: str,
    capability: int,
    dtype: str,
    warps: int,
    stages: int,
    tmp_path: Path,
    **constants: Any,
) -> Compiled:
    kernel = getattr(triton_kernel, name)
    signature, attributes, values = {}, {}, {}
    for index, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument], values[(index,)] = "constexpr", constants[argument]
            continue
        signature[argument] = TYPES.get(argument, "*" + dtype)
        # What Triton finds out at a launch: tensors are aligned, sizes are multiples of 16.
        if signature[argument].startswith("*") or argument in ("H", "I"):
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, values, attributes)
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True},
    )
    path = tmp_path / "kernel.cubin"
    path.write_bytes(compiled.asm["cubin"])
    command = [str(CUOBJDUMP), "--dump-resource-usage", str(path)]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = (
        int(re.findall(rf"\b{what}:(\d+)", usage)[0]) for what in ("REG", "STACK", "LOCAL")
    )
    return Compiled(
        compiled.asm["ptx"],
        compiled.asm["cubin"],
        registers,
        stack,
        local,
        compiled.metadata.shared,
    )


def options(shape: TileShape) -> dict[str, Any]:
    return {
        "warps": shape.warps,
        "stages": shape.stages,
        "THREADS": 32 * shape.warps,
        "ROWS": shape.rows,
        "COLUMNS": shape.columns,
        "DEPTH": shape.depth,
        "GROUP": GROUP,
    }


def check(compiled: Compiled, capability: int) -> None:
    assert len(compiled.cubin) > 1000
    assert compiled.cubin.startswith(b"\x7fELF")
    assert f".target sm_{capability}" in compiled.ptx
    assert 0 < compiled.registers <= 255
    assert compiled.stack == compiled.local == 0, "registers are spilt to local memory"
    assert 0 < compiled.shared <= SHARED[capability]


# The variants that need most registers: found by compiling all of them.
@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("average", [1, 50, 500])
@pytest.mark.parametrize(
    ("dtype", "activation", "bias", "even"),
    [
        ("bf16", "silu", False, True),
        ("bf16", "gelu", True, False),
        ("fp16", "gelu_tanh", True, True),
    ],
)
def test_the_gemms_fit(
    capability: int,
    average: int,
    dtype: str,
    activation: str,
    bias: bool,
    even: bool,
    tmp_path: Path,
) -> None:
    gate_up, down, _ = shapes_for(average, 1, 1, capability // 10)
    none = {} if bias else {"bias13": None, "bias2": None}
    both = {"HAS_BIAS": bias, "EVEN": even, "WATCH": True}
    first = compile_kernel(
        "gate_up",
        capability,
        dtype,
        tmp_path=tmp_path,
        TOP_K=2,
        ACTIVATION=activation,
        **none,
        **both,
        **options(gate_up),
    )
    check(first, capability)
    assert_one_answer_for_all_threads(first.ptx)
    second = compile_kernel(
        "down",
        capability,
        dtype,
        tmp_path=tmp_path,
        TAIL=False,
        BEFORE=gate_up.columns,
        **none,
        **both,
        **options(down),
    )
    check(second, capability)
    assert_one_answer_for_all_threads(second.ptx)


def compile_sum(capability: int, shapes: Shapes, tmp_path: Path) -> Compiled:
    return compile_kernel(
        "weighted_sum",
        capability,
        "bf16",
        SUM_WARPS,
        3,
        tmp_path,
        TOP_K=8,
        HAS_WEIGHTS=True,
        THREADS=32 * SUM_WARPS,
        TOKENS=shapes.tokens,
        COLUMNS=SUM_COLUMNS,
        BEFORE=shapes.down.columns,
    )


@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("average", [1, 50, 500])
def test_the_sum_fits(capability: int, average: int, tmp_path: Path) -> None:
    compiled = compile_sum(capability, shapes_for(average, 1, 1, 9), tmp_path)
    check(compiled, capability)


def test_without_a_flag_there_is_no_look_at_one(tmp_path: Path) -> None:
    compiled = compile_sum(90, shapes_for(1, 1, 1, 9), tmp_path)
    assert "ld.volatile" not in compiled.ptx
    assert "atom." in compiled.ptx


def assert_one_answer_for_all_threads(ptx: str) -> None:
    """Threads look at the flag one by one, and it may change between two of them.

    So between each look and the claim that depends on it the answers must meet in shared memory.
    """
    looks = ptx.split("ld.volatile.global.b64")[1:]
    assert len(looks) == 2  # before the first tile, and after each
    for look in looks:
        before_the_branch = look[: re.search(r"@!?%p\d+ bra", look).start()]  # type: ignore[union-attr]
        order = re.findall(r"st\.shared|bar\.sync|ld\.shared|atom\.", before_the_branch)
        text = " ".join(order)
        assert re.search(r"st\.shared (?:bar\.sync )+ld\.shared", text), text
        assert "atom." not in text, "claimed before the answer was known"
        assert "atom.global.gpu.relaxed.add.u32" in look
