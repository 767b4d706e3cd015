# SPDX-License-Identifier: Apache-2.0
"""The compiled part of the CPU kernel: found, checked, and loaded once a process."""

from __future__ import annotations

import ctypes
import functools
import platform
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vllm_qllm import __version__

KERNELS = {"amx": 0, "avx512": 2, "brgemm": 1}
"""Which instructions multiply: AMX tiles, AVX512-BF16, or oneDNN's micro-kernel.

In order of preference. oneDNN's needs AMX, too, so it is one to compare with. The numbers are those
of ``qllm::Kernel`` in csrc/moe_cpu.cpp.
"""

PATH = Path(__file__).with_name("_moe_cpu.so")


class Problem(ctypes.Structure):
    """``qllm::Problem`` in csrc/moe_cpu.cpp."""

    _fields_ = [
        ("output", ctypes.c_void_p),
        ("hidden", ctypes.c_void_p),
        ("w13", ctypes.c_void_p),
        ("w2", ctypes.c_void_p),
        ("bias13", ctypes.c_void_p),
        ("bias2", ctypes.c_void_p),
        ("topk_weights", ctypes.c_void_p),
        ("topk_ids", ctypes.c_void_p),
        ("tokens", ctypes.c_int64),
        ("topk", ctypes.c_int64),
        ("experts", ctypes.c_int64),
        ("hidden_size", ctypes.c_int64),
        ("inter_size", ctypes.c_int64),
        ("ids_are_64_bit", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("unweighted", ctypes.c_int32),
        ("kernel", ctypes.c_int32),
    ]


class Library(NamedTuple):
    functions: Any
    kernel: str
    reason: str | None
    """Why it cannot be used, or None."""


def need() -> Any:
    """The functions. Raises RuntimeError with the reason when they cannot be used."""
    library = load()
    if library.reason is not None:
        raise RuntimeError(library.reason)
    return library.functions


@functools.cache
def load(
    path: Path = PATH, torch_version: str = torch.__version__, release: str = __version__
) -> Library:
    """Loads the library, or says why it cannot be used here."""
    if platform.machine() != "x86_64":
        return Library(None, "", f"the MoE kernel is for x86-64, this is {platform.machine()}")
    if not path.exists():
        reason = "the MoE kernel is not installed: it is vllm-qllm-cpu, see docs/install.md"
        return Library(None, "", reason)
    try:
        functions: Any = ctypes.CDLL(str(path))
    except OSError as error:
        return Library(None, "", f"the MoE kernel does not load: {error}")
    # Structures are shared with it, and another release may have others.
    if (made_for := _release(functions)) != release:
        reason = f"the MoE kernel is of vllm-qllm {made_for}, this is {release}"
        return Library(None, "", reason)
    functions.qllm_torch_version.restype = ctypes.c_char_p
    built_for = functions.qllm_torch_version().decode()
    if built_for != torch_version.split("+")[0]:
        reason = f"the MoE kernel was built for torch {built_for}, this is {torch_version}"
        return Library(None, "", reason)
    _declare(functions)
    reasons = []
    for kernel, number in KERNELS.items():
        reason = functions.qllm_unavailable(number)
        if reason is None:
            return Library(functions, kernel, None)
        reasons.append(reason.decode())
    return Library(None, "", "the MoE kernel cannot run here: " + "; ".join(dict.fromkeys(reasons)))


def _release(functions: Any) -> str:
    if not hasattr(functions, "qllm_release"):
        return "before 0.2.0"
    functions.qllm_release.restype = ctypes.c_char_p
    return str(functions.qllm_release().decode())


def _declare(functions: Any) -> None:
    number, address = ctypes.c_int64, ctypes.c_void_p
    for name, result, arguments in (
        ("qllm_unavailable", ctypes.c_char_p, [ctypes.c_int32]),
        ("qllm_pack", None, [address, address, number, number, number]),
        ("qllm_work_new", address, [ctypes.POINTER(Problem)]),
        ("qllm_work_delete", None, [address]),
        ("qllm_work_items", number, [address]),
        ("qllm_work_run", number, [address, address, number, number]),
    ):
        function = getattr(functions, name)
        function.restype, function.argtypes = result, arguments
