# SPDX-License-Identifier: Apache-2.0
"""What a result was measured on: machine, versions, and which state of the source."""

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = "benchmarks/results"
# The instructions that decide how fast bf16 matrix products are.
MATRIX_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def cpu() -> tuple[str, list[str]]:
    """Name of the processor, and which of MATRIX_FLAGS it has."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", "").split()
    return fields.get("model name", platform.machine()), [f for f in MATRIX_FLAGS if f in flags]


def package(name: str) -> str:
    """Installed version, or a word that says there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit checked out, with ``+`` when the tree differs from it, results left out."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True)
        others = (".", f":!{RESULTS}")
        changed = subprocess.run([*git, "status", "--porcelain", *others], capture_output=True)
    except OSError:
        return "unknown"
    if head.returncode:
        return "unknown"
    return head.stdout.decode().strip() + ("+" if changed.stdout.strip() else "")


def source_digest() -> str:
    """Identifies the plugin's source, committed or not: results of other source are not reused."""
    digest = hashlib.sha256()
    for folder in ("vllm_qllm", "csrc"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in {".py", ".cpp", ".h", ".cu"}:
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def conditions() -> dict[str, Any]:
    """Everything above, ready for JSON."""
    name, flags = cpu()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": name,
        "cpu_flags": flags,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "python": platform.python_version(),
        "vllm": package("vllm"),
        "torch": package("torch"),
        "vllm_qllm": package("vllm-qllm"),
        "commit": commit(),
        "source": source_digest(),
        "environment": environment(),
    }


def environment() -> dict[str, str]:
    """Variables that change how fast a server is; of paths, the last part: results are public."""
    found = {}
    for name, value in sorted(os.environ.items()):
        if name in ("LD_PRELOAD", "OMP_NUM_THREADS") or name.startswith(("VLLM_", "QLLM_")):
            found[name] = ":".join(
                Path(part).name if "/" in part else part for part in value.split(":")
            )
    return found


def sentence(facts: dict[str, Any]) -> str:
    """The line above a table."""
    return (
        f"{facts['cores']} cores of {facts['cpu']} ({', '.join(facts['cpu_flags'])}), "
        f"{facts['memory_gib']} GiB; vLLM {facts['vllm']}, torch {facts['torch']}, "
        f"Python {facts['python']}; commit {facts['commit']}"
    )
