# SPDX-License-Identifier: Apache-2.0
"""Clients reach the API and the health of a server, by whatever spelling nothing else."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from tests.spellings import disguises, spellings
from vllm_qllm.ray.paths import is_open, target_of


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
        *("/v1/load_lora_adapter/", "/v1//models", "//v1/models", "/v1/models;x", "/v1/a%62"),
        *("/v1/../metrics", "/v1/..", "/v1/x/../load_lora_adapter", "/v1/./load_lora_adapter"),
        *("/v1/%2e%2e/metrics", "/v1/.%2E/qllm/timeline", "/v1/%2e/load_lora_adapter"),
    ],
)
def test_nothing_else_is(path: str) -> None:
    assert not is_open(path)


def target(sent: str) -> str | None:
    """What a replica is asked for when a front is asked for this."""
    path, _, query = sent.removeprefix("http://127.0.0.1").partition("#")[0].partition("?")
    scope = {"path": unquote(path), "raw_path": path.encode(), "query_string": query.encode()}
    return target_of(scope)


@pytest.mark.parametrize("path", ["/metrics", "/v1/load_lora_adapter", "/qllm/status"])
def test_no_spelling_opens_what_is_closed(path: str) -> None:
    for name in (*spellings(path), *disguises(path, "/v1/models"), *disguises(path, "/health")):
        found = target(name)
        if found is not None:
            seen = found.partition("?")[0]
            # However often it is decoded: another path, and an open one.
            assert seen == unquote(seen) and is_open(seen)
            assert seen != path and not seen.startswith(f"{path}/")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/responses/resp_1-a.b", "/health"])
def test_what_is_open_is_passed_on_as_it_was_sent(path: str) -> None:
    assert target(path) == path
    assert target(f"{path}?a=%2e&b=//") == f"{path}?a=%2e&b=//"
    for name in spellings(path):
        found = target(name)
        sent = name.removeprefix("http://127.0.0.1").partition("#")[0]
        assert found in (None, sent.removesuffix("?")), name


def test_a_front_that_does_not_say_how_the_path_was_sent_passes_on_what_it_read() -> None:
    assert target_of({"path": "/v1/models", "query_string": b""}) == "/v1/models"
    assert target_of({"path": "/v1/load%5Flora_adapter"}) is None
