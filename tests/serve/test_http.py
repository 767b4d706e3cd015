# SPDX-License-Identifier: Apache-2.0
"""What a client of the OpenAI API meets at a server with the policy strict."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest

from tests.serve.server import MODEL, Server
from vllm_qllm.config import INT64_MAX, INT64_MIN
from vllm_qllm.metrics.names import METRICS

pytestmark = pytest.mark.server

LS, BE = "latency_sensitive", "best_effort"
HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    """The real client; it must not hide an error by trying again."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


def chat(client: openai.OpenAI, **fields: Any) -> str:
    """A greedy chat of four tokens; returns its text."""
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=4, temperature=0, **fields
    )
    return str(answer.choices[0].message.content)


def ended(server: Server) -> dict[str, float]:
    """How many requests of each class ended, however."""
    samples = server.samples("qllm_requests_total")
    return {c: sum(n for key, n in samples.items() if f'class="{c}"' in key) for c in (LS, BE)}


def wait_for(server: Server, before: dict[str, float], cls: str, count: int = 1) -> None:
    """Until so many more requests of ``cls`` have ended; none of another class may."""
    expected = before | {cls: before[cls] + count}
    deadline = time.monotonic() + 10
    while (now := ended(server)) != expected:
        assert time.monotonic() < deadline, f"ended: {now}, expected: {expected}"
        time.sleep(0.05)


CLASS_OF = [
    ({}, LS),
    ({"service_tier": "auto"}, LS),
    ({"service_tier": "default"}, LS),
    ({"service_tier": "priority"}, LS),
    ({"service_tier": "scale"}, LS),
    ({"service_tier": "flex"}, BE),
    ({"extra_body": {"priority": 3}}, BE),
    ({"extra_body": {"priority": -3}}, LS),
    ({"extra_body": {"priority": 0}, "service_tier": "flex"}, LS),
    ({"extra_body": {"priority": INT64_MAX}}, BE),
    ({"extra_body": {"priority": INT64_MIN}}, LS),
    ({"extra_headers": {"X-Vllm-Priority": "5"}, "service_tier": "priority"}, BE),
    ({"extra_headers": {"X-Vllm-Priority": "-5"}, "extra_body": {"priority": 9}}, LS),
    ({"service_tier": "fast"}, LS),
    # A tier that nobody knows, and a field that nobody reads, ask for nothing.
    ({"service_tier": "cheap"}, LS),
    ({"service_tier": 5}, LS),
    ({"metadata": {"priority": "10"}}, LS),
    # The SDK sends what it gets as extra_body at the top: this one is a field of the JSON.
    ({"extra_body": {"extra_body": {"priority": 10}}}, BE),
    ({"extra_body": {"extra_body": {"service_tier": "flex"}}}, BE),
    ({"extra_body": {"extra_body": {"priority": 10}, "priority": 10}}, BE),
    # vLLM itself runs its beams with priority 0.
    ({"service_tier": "flex", "extra_body": {"use_beam_search": True, "n": 2}}, BE),
]


@pytest.mark.covers("service_tier", "eager")
@pytest.mark.covers("Chat completions", "eager")
@pytest.mark.parametrize(("fields", "cls"), CLASS_OF)
def test_the_class_of_a_chat(server: Server, client: openai.OpenAI, fields: Any, cls: str) -> None:
    before = ended(server)
    chat(client, **fields)
    if "use_beam_search" in str(fields):
        wait_for(server, before, cls, count=7)  # of two beams and four tokens; they begin as one
    else:
        wait_for(server, before, cls)


def test_what_is_not_read_is_told_once(server: Server, client: openai.OpenAI) -> None:
    for _ in range(2):
        chat(client, extra_body={"nvext": {"agent_hints": {"priority": 5}}})
    log = server.log.read_text(errors="replace")
    assert log.count("names nvext.agent_hints.priority, which is not read") == 1
    chat(client, service_tier="flex")
    for _ in range(2):
        chat(client)
    log = server.log.read_text(errors="replace")
    assert log.count(f"while others do: it is served in the class {LS}") == 1


@pytest.mark.covers("service_tier", "eager")
@pytest.mark.covers("Completions", "eager")
@pytest.mark.covers("Responses", "eager")
@pytest.mark.parametrize(("priority", "cls"), [(0, LS), (1, BE)])
def test_the_class_of_other_requests(
    server: Server, client: openai.OpenAI, priority: int, cls: str
) -> None:
    before = ended(server)
    extra: Any = {"extra_body": {"priority": priority}}
    tier: Any = {"service_tier": "flex" if cls == BE else "auto"}
    client.completions.create(model=MODEL, prompt="hello", max_tokens=2, **extra)
    client.completions.create(model=MODEL, prompt=["a", "b"], max_tokens=2, extra_body=tier)
    client.responses.create(model=MODEL, input="hello", max_output_tokens=2, store=False, **tier)
    batch = {"model": MODEL, "messages": [HELLO, HELLO], "max_tokens": 2, **tier}
    client.post("/chat/completions/batch", body=batch, cast_to=object)
    wait_for(server, before, cls, count=6)


@pytest.mark.covers("Streaming", "eager")
def test_a_stream_says_the_same_in_every_class(client: openai.OpenAI) -> None:
    texts = set()
    for tier in ("priority", "flex"):
        stream: Any = client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=4,
            temperature=0,
            stream=True,
            service_tier=tier,  # type: ignore[arg-type]
        )
        texts.add("".join(chunk.choices[0].delta.content or "" for chunk in stream))
    assert texts == {chat(client)}


def test_a_client_that_goes_away_is_an_abort(server: Server, client: openai.OpenAI) -> None:
    key = f'qllm_requests_total{{class="{BE}",outcome="abort"}}'
    before, aborts = ended(server), server.samples()[key]
    stream = client.completions.create(
        model=MODEL,
        prompt="hello",
        max_tokens=1900,
        stream=True,
        extra_body={"priority": 1, "ignore_eos": True},
    )
    next(iter(stream))
    stream.close()
    wait_for(server, before, BE)
    assert server.samples()[key] == aborts + 1


RANGE = [str(INT64_MIN), str(INT64_MAX)]
# Fields of a request, the field that the answer names, the value it shows, what it allows.
REFUSED = [
    (
        {"extra_body": {"priority": 1, "extra_body": {"priority": 2}}},
        "priority",
        "2",
        ["priority is 1"],
    ),
    (
        {"service_tier": "auto", "extra_body": {"extra_body": {"service_tier": "flex"}}},
        "service_tier",
        "flex",
        ["service_tier is 'auto'", "extra_body.service_tier"],
    ),
    ({"extra_body": {"extra_body": {"priority": "high"}}}, "priority", "high", RANGE),
    ({"extra_headers": {"X-Vllm-Priority": "urgent"}}, "X-Vllm-Priority", "urgent", RANGE),
    ({"extra_headers": {"X-Vllm-Priority": "1.5"}}, "X-Vllm-Priority", "1.5", RANGE),
    (
        {"extra_headers": {"X-Vllm-Priority": str(INT64_MAX + 1)}},
        "X-Vllm-Priority",
        str(INT64_MAX + 1),
        RANGE,
    ),
    ({"extra_body": {"priority": "high"}}, "priority", "high", ["valid integer"]),
    ({"extra_body": {"priority": 1.5}}, "priority", "1.5", ["valid integer"]),
    ({"extra_body": {"priority": None}}, "priority", "None", ["valid integer"]),
    ({"extra_body": {"priority": INT64_MAX + 1}}, "priority", str(INT64_MAX + 1), RANGE[1:]),
    ({"extra_body": {"priority": INT64_MIN - 1}}, "priority", str(INT64_MIN - 1), RANGE[:1]),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "field", "value", "allowed"), REFUSED)
def test_what_cannot_be_understood_is_refused_and_nothing_is_lost(
    server: Server,
    client: openai.OpenAI,
    stream: bool,
    fields: Any,
    field: str,
    value: str,
    allowed: list[str],
) -> None:
    before = ended(server)
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, stream=stream, **fields)
    message = refused.value.message
    assert refused.value.param is not None
    assert refused.value.param.split(".")[-1] == field
    for part in (field, value, *allowed):
        assert part in message
    chat(client, service_tier="flex")
    wait_for(server, before, BE)


def test_every_metric_is_there_with_bounded_labels(server: Server, client: openai.OpenAI) -> None:
    chat(client, service_tier="flex")
    text, samples = server.get("/metrics"), server.samples()
    for metric in METRICS:
        assert f"# TYPE {metric.name} {metric.kind}" in text
    names = {key.partition("{")[0] for key in samples}
    for metric in METRICS:
        assert metric.name + ("_bucket" if metric.kind == "histogram" else "") in names
    assert len(samples) < 500
    assert str(INT64_MAX) not in "".join(samples)
    assert server.samples("vllm:"), "vLLM's own metrics are gone"


def test_numbers_of_a_request_add_up(server: Server, client: openai.OpenAI) -> None:
    before, done = server.samples(), ended(server)
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=7, extra_body={"ignore_eos": True}
    )
    wait_for(server, done, LS)
    change = {k: v - before[k] for k, v in server.samples().items() if v != before[k]}
    label = f'{{class="{LS}"}}'
    assert answer.usage is not None
    assert change[f"qllm_prompt_tokens_total{label}"] == answer.usage.prompt_tokens
    assert change[f"qllm_generated_tokens_total{label}"] == 7
    assert change[f'qllm_requests_total{{class="{LS}",outcome="length"}}'] == 1
    for histogram in ("time_to_first_token", "time_per_output_token", "end_to_end", "response"):
        assert change[f"qllm_{histogram}_seconds_count{label}"] == 1, histogram
    first, whole = (
        change[f"qllm_{name}_seconds_sum{label}"] for name in ("time_to_first_token", "end_to_end")
    )
    assert 0 < change[f"qllm_response_seconds_sum{label}"] < first < whole < 30
    assert not any(BE in key for key in change)


def test_an_idle_server_has_nothing_running(server: Server) -> None:
    gauges = {k: v for k, v in server.samples("qllm_requests_").items() if "_total" not in k}
    assert len(gauges) == 6
    assert set(gauges.values()) == {0}
