# SPDX-License-Identifier: Apache-2.0
"""Step costs are measured on a real server, and a simulation can be run with them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.serve.server import Server
from vllm_qllm.capacity.__main__ import main
from vllm_qllm.capacity.cost import Cost


@pytest.mark.server
def test_a_server_is_measured(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cost.json"
    sizes = ["--prompts", "16,256", "--rows", "1,3", "--repeats", "3", "--layers", "4"]
    words = ["capacity", "measure", "--url", server.url, "-o", str(path), *sizes]
    monkeypatch.setattr(sys, "argv", words)
    assert main() == 0
    cost = Cost.load(path)
    assert [n for n, _ in cost.step] == [1, 3, 16, 256]
    assert 0 < cost.step[0][1] < 1
    assert cost.layers == 4
    assert cost.kv_blocks is not None
    assert cost.block_size is not None
