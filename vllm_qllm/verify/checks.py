# SPDX-License-Identifier: Apache-2.0
"""What ``verify`` looks at. Nothing is imported before it is needed: any of it may be broken."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

GROUP, ENTRY_POINT = "vllm.general_plugins", "qllm"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: ``ok``; ``off``, which serving can do without; or ``BAD``, which it cannot.
        name: what was looked at.
        detail: what was found, in a sentence.
    """

    state: str
    name: str
    detail: str


def entry_point() -> Iterator[Finding]:
    """Whether vLLM will find the plugin, and whether it may load it."""
    found = [e for e in importlib.metadata.entry_points(group=GROUP) if e.name == ENTRY_POINT]
    allowed = os.environ.get("VLLM_PLUGINS")
    if not found:
        detail = f"{GROUP} has no {ENTRY_POINT}: install with pip"
    elif allowed is not None and ENTRY_POINT not in allowed.split(","):
        detail = f"VLLM_PLUGINS={allowed} leaves it out: add {ENTRY_POINT}"
    else:
        yield Finding("ok", "entry point", f"{GROUP}: {found[0].name} = {found[0].value}")
        return
    if _needs_no_plugin():
        yield Finding("off", "entry point", f"not needed, this vLLM is patched ({detail})")
    else:
        yield Finding("BAD", "entry point", detail)


def _needs_no_plugin() -> bool:
    """Whether this vLLM was built with all of ``patches/``."""
    from vllm_qllm import seams

    try:
        return all(seam.wrapped_in() == seams.SOURCE for seam in seams.ALL)
    except (ImportError, AttributeError):
        return False  # which vllm() reports


def vllm() -> Iterator[Finding]:
    """Whether this vLLM is the known one, seam by seam, and the seams can be installed."""
    from vllm_qllm import contract

    if (version := contract.installed_version()) != contract.SUPPORTED:
        yield Finding("BAD", "vLLM", contract.violations(())[0])
        return
    try:
        from vllm_qllm import plugin, seams

        violations = seams.violations()
    except Exception as error:
        yield Finding("BAD", "vLLM", f"{version} is installed but cannot be imported: {error}")
        return
    yield Finding("ok", "vLLM", f"{version}, the supported version")
    plugin.register()
    for seam in seams.ALL:
        if broken := [v for v in violations if v.startswith(f"{seam} ")]:
            yield Finding("BAD", "seam", broken[0])
        elif (place := seam.wrapped_in()) is None:
            detail = f"{seam} could not be replaced; it is needed for {seam.why}"
            yield Finding("BAD", "seam", detail)
        else:
            yield Finding("ok", "seam", f"{seam}: {seam.why} ({place})")


def policies() -> Iterator[Finding]:
    """Which policies there are, and that each can be made."""
    from vllm_qllm.config import PriorityConfig
    from vllm_qllm.policy.registry import BUILT_IN, resolve

    for name in BUILT_IN:
        resolve(PriorityConfig(policy=name))
    yield Finding("ok", "policies", ", ".join(BUILT_IN) + ", or module:Class of your own")


def shared_memory() -> Iterator[Finding]:
    """Whether one process can tell another to suspend a step."""
    from vllm_qllm.execution.flag import Flag

    try:
        written = Flag()
    except OSError as error:
        yield Finding("BAD", "shared memory", f"cannot be created ({error}); is /dev/shm writable?")
        return
    try:
        read = Flag(written.name)
        written.raise_for(7)
        arrived = read.names(7)
        read.close()
    finally:
        written.close()
    if arrived:
        yield Finding("ok", "shared memory", "the arrival flag can be raised and read")
    else:
        yield Finding("BAD", "shared memory", "a raised flag was not seen by its reader")


def metrics() -> Iterator[Finding]:
    """Whether numbers get from an engine to ``/metrics``."""
    from vllm_qllm.config import PriorityConfig
    from vllm_qllm.metrics.collector import PriorityCollector
    from vllm_qllm.metrics.recorder import Recorder

    config = PriorityConfig()
    with tempfile.TemporaryDirectory(prefix="vllm-qllm-") as directory:
        prefix = str(Path(directory) / "metrics")
        recorder = Recorder(config, f"{prefix}.0")
        recorder.preemption(0)
        recorder.close()
        families = list(PriorityCollector([c.name for c in config.classes], prefix).collect())
    # All but the number of engines, which is no event.
    samples = [s for f in families for s in f.samples if s.name != "qllm_recording_engines"]
    total = sum(s.value for s in samples)
    if total == 1:
        yield Finding("ok", "metrics", f"{len(families)} families, qllm_*, on /metrics")
    else:
        yield Finding("BAD", "metrics", f"one event was written and {total:g} were read back")


def model_runner() -> Iterator[Finding]:
    """Whether an engine with a policy gets the model runner that this release supports."""
    from vllm import envs

    if envs.VLLM_USE_V2_MODEL_RUNNER:
        detail = "VLLM_USE_V2_MODEL_RUNNER=1: V2 is not supported; unset it, and V1 is chosen"
        yield Finding("BAD", "model runner", detail)
    else:
        yield Finding("ok", "model runner", "V1, where there is a policy")


def front_end() -> Iterator[Finding]:
    """Whether ``vllm serve`` would start the front end that knows classes."""
    from vllm import envs

    if envs.VLLM_USE_RUST_FRONTEND:
        detail = "VLLM_USE_RUST_FRONTEND=1: the Rust front end is not supported; unset it"
        yield Finding("BAD", "front end", detail)
    else:
        yield Finding("ok", "front end", "vLLM's HTTP server in Python")


def in_step() -> Iterator[Finding]:
    """Where steps can be suspended; elsewhere they run to their end."""
    from vllm.platforms import current_platform

    name = "in-step preemption"
    if current_platform.is_cpu():
        yield Finding("ok", name, "before and after attention, and among the experts of a layer")
    elif current_platform.is_cuda():
        detail = "on one GPU, in steps without a CUDA graph: around attention and the experts"
        yield Finding("ok", name, detail)
    else:
        detail = f"not on {current_platform.device_type} yet; strict preempts between steps only"
        yield Finding("off", name, detail)


def expert_kernel() -> Iterator[Finding]:
    """Which kernel computes experts between two yield points."""
    from vllm.platforms import current_platform

    from vllm_qllm.kernels.moe import cpu_library

    library = cpu_library.load()
    if current_platform.is_cuda():
        detail = "for long layers of bf16 and fp16 experts, stops at every tile"
        yield Finding("ok", "expert kernel", detail)
    elif library.reason is not None:
        detail = f"{library.reason}; vLLM's own is used, in tiles of rows"
        yield Finding("off", "expert kernel", detail)
    else:
        detail = f"{library.kernel}, for bf16 experts on the CPU, stops every few milliseconds"
        yield Finding("ok", "expert kernel", detail)


def _cause(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name.partition('.')[0]} is not installed"
    return f"{type(error).__name__}: {error}"


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    entry_point,
    vllm,
    policies,
    shared_memory,
    metrics,
    model_runner,
    front_end,
    in_step,
    expert_kernel,
)


def findings() -> list[Finding]:
    """Look at everything, whatever some of it turns out to be."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check()
        except Exception as error:
            # Whatever it is, the person who asked wants the other answers too.
            detail = f"could not be checked: {_cause(error)}"
            found.append(Finding("BAD", check.__name__.replace("_", " "), detail))
    return found
