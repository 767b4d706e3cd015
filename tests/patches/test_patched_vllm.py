# SPDX-License-Identifier: Apache-2.0
"""A patched vLLM serves with the plugin off, and is stock where vllm-qllm is not installed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.patches import offline, places
from tests.serve.server import MODEL, STRICT, Server, serve
from tests.serve.test_preemption import prompt
from vllm_qllm import seams

Answer = tuple[list[int], list[float]]

SLOW = [prompt(n, 1900) for n in range(6)]
FAST = [prompt(100 + n, 40) for n in range(8)]
OUT = 4
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1"}


def script(module: Any, *arguments: str, flags: tuple[str, ...] = (), **environment: str) -> Any:
    """Run a script in a process of its own, outside of this tree; returns what it reports."""
    done = subprocess.run(
        [sys.executable, *flags, module.__file__, *arguments],
        cwd="/",
        env=os.environ | QUIET | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def answers_of(model: Path, **how: Any) -> Any:
    """What a vLLM without a policy answers to all prompts."""
    return script(offline, str(model), json.dumps(SLOW + FAST), str(OUT), VLLM_PLUGINS="", **how)


@pytest.fixture(scope="module")
def stock(tiny_model: Path, root: Path) -> Any:
    """What stock vLLM answers: not patched, and no plugin loaded."""
    report = answers_of(tiny_model)
    assert Path(report["vllm"]).is_relative_to(root)
    assert not report["loaded"]
    return report


def test_the_plugin_finds_nothing_to_replace(patched: Path) -> None:
    report = script(places, PYTHONPATH=str(patched))
    assert Path(report["vllm"]).is_relative_to(patched)
    assert report["before"] == {str(seam): seams.SOURCE for seam in seams.ALL}
    assert report["violations"] == []
    assert report["replaced"] == []
    assert report["after"] == report["before"]
    # Nor does anybody miss it.
    verified = report["verify"]
    assert verified["works"], verified
    entry_point = next(f for f in verified["findings"] if f["name"] == "entry point")
    assert entry_point["state"] == "off"
    assert "not needed" in entry_point["detail"]
    wrapped = [f["name"] for f in verified["findings"] if seams.SOURCE in f["detail"]]
    assert wrapped == ["seam"] * len(seams.ALL)


@pytest.mark.model
@pytest.mark.slow
def test_without_vllm_qllm_it_is_stock(
    patched: Path, root: Path, tiny_model: Path, stock: Any
) -> None:
    # Without `site` an editable install is not found; site-packages itself still is.
    path = f"{patched}{os.pathsep}{root}"
    report = answers_of(tiny_model, flags=("-S",), PYTHONPATH=path)
    assert Path(report["vllm"]).is_relative_to(patched)
    assert not report["vllm_qllm"]
    assert report["tokens"] == stock["tokens"]
    assert report["logprobs"] == stock["logprobs"]


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(600)  # with the start of what it is compared with
@pytest.mark.covers("vLLM built with patches/", "eager", suspended=True)
def test_it_serves_strict_with_the_plugin_off(
    patched: Path, tiny_model: Path, stock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(patched))
    monkeypatch.setenv("VLLM_PLUGINS", "")
    options = ("--no-enable-prefix-caching", "--max-num-batched-tokens", "1024")
    with serve(tiny_model, tmp_path / "log", *STRICT, *options) as server:
        asyncio.run(suspend_and_compare(server, stock))
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        wrong = {"service_tier": "flex", "extra_body": {"service_tier": "cheap"}}
        with pytest.raises(openai.BadRequestError, match="service_tier is 'cheap'"):
            client.completions.create(model=MODEL, prompt="hi", max_tokens=2, extra_body=wrong)
        # More than one step's tokens: without the seam in sample_tokens the engine dies of it.
        seeded = client.completions.create(
            model=MODEL, prompt=SLOW[0], max_tokens=2, seed=5, extra_body={"ignore_eos": True}
        )
        assert seeded.usage is not None and seeded.usage.completion_tokens == 2


async def ask(client: openai.AsyncOpenAI, tokens: list[int], priority: int) -> Answer:
    """One greedy completion's tokens and their log-probabilities."""
    extra = {"priority": priority, "ignore_eos": True, "return_token_ids": True}
    answer = await client.completions.create(
        model=MODEL, prompt=tokens, max_tokens=OUT, temperature=0, logprobs=0, extra_body=extra
    )
    choice: Any = answer.choices[0]
    return choice.token_ids, choice.logprobs.token_logprobs


async def suspend_and_compare(server: Server, stock: Any) -> None:
    """Urgent and best-effort requests at once until a step was suspended; all tokens are stock."""
    suspensions = 'qllm_suspensions_total{by="latency_sensitive",of="best_effort"}'
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    for _ in range(20):  # until an arrival has hit a step
        tasks = [asyncio.create_task(ask(client, tokens, 9)) for tokens in SLOW]
        for tokens in FAST:
            await asyncio.sleep(0.05)
            tasks.append(asyncio.create_task(ask(client, tokens, 0)))
        answers = await asyncio.gather(*tasks)
        assert [tokens for tokens, _ in answers] == stock["tokens"]
        for (_, logprobs), expected in zip(answers, stock["logprobs"], strict=True):
            assert logprobs == pytest.approx(expected, abs=1e-3)
        if server.samples()[suspensions] > 0:
            return
    raise AssertionError("no step was suspended")
