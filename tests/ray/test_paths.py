# SPDX-License-Identifier: Apache-2.0
"""Clients reach the API and the health of a server, by whatever spelling nothing else."""

from __future__ import annotations

import pytest

from vllm_qllm.ray.paths import is_open


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/chat/completions", "/v1/files/a..b", "/v1/.well-known", "/health"]
)
def test_the_api_is_open(path: str) -> None:
    assert is_open(path)


@pytest.mark.parametrize(
    "path",
    [
        *("/metrics", "/qllm/status", "/v1", "/", "", "/healthz", "/v2/models"),
        *("/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
        *("/v1/../metrics", "/v1/..", "/v1/x/../load_lora_adapter", "/v1/./load_lora_adapter"),
        *("/v1/%2e%2e/metrics", "/v1/.%2E/qllm/timeline", "/v1/%2e/load_lora_adapter"),
    ],
)
def test_nothing_else_is(path: str) -> None:
    assert not is_open(path)
