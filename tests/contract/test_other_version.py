# SPDX-License-Identifier: Apache-2.0
"""On a vLLM of another version a policy is refused in one sentence, and nothing else changes.

The version is what the metadata of a distribution says, so metadata are all that is replaced.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_qllm.contract import SUPPORTED

Run = Callable[..., subprocess.CompletedProcess[str]]
SENTENCE = f"vLLM 0.31.0 is installed, this release supports {SUPPORTED}"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs this Python where vLLM says that it is 0.31.0."""
    metadata = tmp_path / "vllm-0.31.0+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.4\nName: vllm\nVersion: 0.31.0+cpu\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    environment.pop("VLLM_LOGGING_LEVEL", None)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=180,
            check=False,
        )

    return run


def test_a_server_refuses_the_policy_in_one_sentence(run: Run, tiny_model: Path) -> None:
    serve = ("-m", "vllm.entrypoints.cli.main", "serve", str(tiny_model))
    done = run(*serve, "--priority-policy", "strict")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "serve: error: argument --priority-policy: " in last
    assert SENTENCE in last
    assert "Traceback" not in done.stdout + done.stderr


WITHOUT_AND_WITH = """
import sys
from vllm.plugins import load_general_plugins
load_general_plugins()
from vllm.engine.arg_utils import EngineArgs
from vllm_qllm import seams
from vllm_qllm.config import ConfigError

wrapped = [s for s in seams.ALL if hasattr(getattr(s.holder(), s.name), seams.MARK)]
assert wrapped == list(seams.OPTIONS), wrapped

config = EngineArgs(model=sys.argv[1], dtype="float32").create_engine_config()
assert config.scheduler_config.scheduler_cls is None
assert config.scheduler_config.policy == "fcfs"
assert config.parallel_config.worker_extension_cls == ""
assert not isinstance(config.parallel_config.distributed_executor_backend, type)
assert config.additional_config == {}

try:
    EngineArgs(model=sys.argv[1], priority_policy="strict").create_engine_config()
except ConfigError as error:
    print(f"LLM: {error}")

from vllm_qllm.verify import __main__ as verify
sys.exit(verify.main([]))
"""


def test_without_a_policy_nothing_is_replaced(run: Run, tiny_model: Path) -> None:
    done = run("-c", WITHOUT_AND_WITH, str(tiny_model))
    lines = done.stdout.splitlines()
    # LLM(...) is refused as a server is, and verify says why.
    assert any(line.startswith("LLM: ") and SENTENCE in line for line in lines), done.stderr
    assert any(line.split()[:2] == ["BAD", "vLLM"] and SENTENCE in line for line in lines)
    assert done.returncode == 1
    assert "would NOT work here" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
