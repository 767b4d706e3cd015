# SPDX-License-Identifier: Apache-2.0
"""Two API servers before one engine: each knows the policy, and SIGTERM ends them all."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.serve import cleaned
from tests.serve.server import MODEL, STRICT, serve

pytestmark = [pytest.mark.server, pytest.mark.slow]

CONTRADICTS = {"service_tier": "flex", "extra_body": {"service_tier": "cheap"}}


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory with a short name: vLLM's sockets in it must not exceed 107 characters."""
    with tempfile.TemporaryDirectory(prefix="q") as directory:
        yield Path(directory)


@pytest.mark.covers("--api-server-count 2", "eager")
@pytest.mark.covers("Timeline", "eager")
def test_both_know_the_policy_and_nothing_is_left(
    tiny_model: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    arguments = (*STRICT, "--priority-config", '{"timeline": 2048}', "--api-server-count", "2")
    with serve(tiny_model, tmp_path / "log", *arguments) as server:
        assert len(list(temporary.glob("vllm-qllm-*"))) == 1
        # A new connection a request: the kernel spreads them over both servers.
        for _ in range(8):
            client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
            client.completions.create(
                model=MODEL, prompt="hi", max_tokens=2, extra_body={"service_tier": "flex"}
            )
            with pytest.raises(openai.BadRequestError, match="service_tier is 'cheap'"):
                client.completions.create(
                    model=MODEL, prompt="hi", max_tokens=2, extra_body=CONTRADICTS
                )
            client.close()
        key = 'qllm_generated_tokens_total{class="best_effort"}'
        for _ in range(4):
            assert server.samples()[key] == 16
            (engine,) = json.loads(server.get("/qllm/timeline?seconds=600"))["engines"]
            ends = [e["tokens"] for e in engine["events"] if e["kind"] == "request_finished"]
            assert ends == [2] * 8
        # Nor is anything lost when somebody cleans the directory of temporary files.
        before = server.samples()
        cleaned.clean(temporary)
        for n in range(1, 5):
            client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
            client.completions.create(
                model=MODEL, prompt="hi", max_tokens=2, extra_body={"service_tier": "flex"}
            )
            client.close()
            after = server.samples()
            assert after.keys() >= before.keys() and after[key] == 16 + 2 * n
            (engine,) = json.loads(server.get("/qllm/timeline?seconds=600"))["engines"]
            assert sum(e["kind"] == "request_finished" for e in engine["events"]) == 8 + n
        assert "vLLM's own metrics are gone" in server.log.read_text()
        # One that is being answered must not keep the server alive.
        busy = threading.Thread(target=_ask_for_much, args=(server.url,), daemon=True)
        busy.start()
        server.process.terminate()
        assert server.has_ended(within_seconds=30), server.tail()
        busy.join(timeout=30)
        assert not busy.is_alive(), "a client was left without an answer"
    assert not list(temporary.glob("vllm-qllm-*"))


def _ask_for_much(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    try:
        client.completions.create(
            model=MODEL, prompt="hi", max_tokens=1900, extra_body={"ignore_eos": True}
        )
    except openai.APIError:
        return
