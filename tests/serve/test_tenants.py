# SPDX-License-Identifier: Apache-2.0
"""A server with tenants and two API servers: who gets what, who is refused, and what is told."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serve.browser import Tab
from tests.serve.server import MODEL, serve
from tests.serve.tenants import BE, HELLO, LS, Tenants
from vllm_qllm import keys as keys_command

pytestmark = [pytest.mark.server, pytest.mark.slow]

CHAT = {"model": MODEL, "messages": HELLO, "max_tokens": 2}


@pytest.fixture(scope="module")
def tenants(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    """One server for all tests here; afterwards nothing secret may be found in its log."""
    directory = tmp_path_factory.mktemp("tenants")
    tenants = Tenants(directory / "tenants.json")
    tenants.write()
    # Not by --priority-config: it must not matter how a policy is named.
    priority = {"tenants": str(tenants.file), "program_ttl_ms": 600_000}
    config = {"priority_policy": "strict", "priority_config": priority}
    # A short name: vLLM's sockets in it must not exceed 107 characters.
    with (
        tempfile.TemporaryDirectory(prefix="q") as temporary,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", temporary)
        options = ("--additional-config", json.dumps(config), "--api-server-count", "2")
        options += ("--enable-scale-out",)
        with serve(tiny_model, directory / "log", *options) as server:
            tenants.server = server
            yield tenants
            # When vLLM ends several API servers, one may log that its engine has gone.
            assert "Traceback" not in server.log.read_text(errors="replace")
        log = server.log.read_text(errors="replace")
        for secret in (*tenants.keys.values(), "zyxcanaryprompt", "zyxwrongkey"):
            assert secret not in log, secret
        assert log.count("7 tenants read from") == 2


def stream(client: openai.OpenAI, **fields: Any) -> Any:
    """A stream that has begun, and will take seconds."""
    started = client.completions.create(
        model=MODEL,
        prompt="hi",
        max_tokens=1900,
        stream=True,
        extra_body={"ignore_eos": True, **fields},
    )
    next(iter(started))
    return started


# Tenant, what a request says, the tier that serves it or the class that is refused.
ASKED: list[tuple[str, dict[str, Any], str]] = [
    ("web", {}, "default"),
    ("web", {"service_tier": "priority"}, "priority"),
    ("web", {"service_tier": "flex"}, "flex"),
    ("web", {"priority": -7}, "default"),
    ("web", {"extra_body": {"service_tier": "flex"}}, "flex"),
    ("web", {"service_tier": "fast"}, "priority"),
    ("jobs", {}, "flex"),
    ("jobs", {"service_tier": "auto"}, "flex"),
    ("jobs", {"service_tier": "flex"}, "flex"),
    ("jobs", {"priority": 9}, "flex"),
    ("jobs", {"priority": 9, "service_tier": "priority"}, "flex"),
    ("jobs", {"service_tier": "default"}, LS),
    ("jobs", {"service_tier": "priority"}, LS),
    ("jobs", {"priority": 0}, LS),
    ("jobs", {"extra_body": {"priority": 0}}, LS),
    ("jobs", {"service_tier": "fast"}, LS),
    ("jobs", {"priority": 0, "service_tier": "flex"}, LS),
    ("lowered", {}, "flex"),
    ("lowered", {"service_tier": "priority"}, "flex"),
    ("lowered", {"priority": -(2**63)}, "flex"),
    ("modest", {}, "flex"),
    ("modest", {"service_tier": "default"}, "default"),
    ("modest", {"service_tier": "priority"}, LS),
    ("modest", {"priority": -1}, LS),
    ("admin", {"service_tier": "flex"}, BE),
]
PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 1},
    "/v1/chat/completions/batch": {"messages": [HELLO, HELLO], "max_tokens": 1},
    "/v1/completions": {"prompt": "hi", "max_tokens": 1},
    "/v1/responses": {"input": "hi", "max_output_tokens": 1, "store": False},
    "/invocations": {"prompt": "hi", "max_tokens": 1},
}


@pytest.mark.covers("Tenants", "eager")
@pytest.mark.parametrize("path", PATHS)
def test_each_api_knows_who_may_use_what(tenants: Tenants, path: str) -> None:
    for tenant, fields, expected in ASKED:
        with tenants.http(tenant) as client:
            answer = client.post(path, json={"model": MODEL} | PATHS[path] | fields)
        told = answer.json()
        if expected in (LS, BE):
            assert answer.status_code == 403, (tenant, fields, told)
            assert told["error"]["type"] == "PermissionDeniedError"
            assert told["error"]["param"] == "priority"
            assert answer.headers["X-Request-Id"]
        else:
            assert (answer.status_code, told.get("service_tier")) == (200, expected), (tenant, told)


def test_the_header_is_no_way_around(tenants: Tenants) -> None:
    for tenant, status in (("web", 200), ("jobs", 403), ("lowered", 200)):
        with tenants.http(tenant, **{"X-Vllm-Priority": "-9"}) as client:
            answer = client.post("/v1/chat/completions", json=CHAT | {"priority": 5})
        assert answer.status_code == status
        if tenant == "lowered":
            assert answer.json()["service_tier"] == "flex"
    # What the engine was told, not only what the client was.
    before = tenants.server.samples(f'qllm_requests_total{{class="{LS}"')  # type: ignore[union-attr]
    with tenants.http("lowered", **{"X-Vllm-Priority": "-9"}) as client:
        client.post("/v1/chat/completions", json=CHAT).raise_for_status()
    assert tenants.server.samples(f'qllm_requests_total{{class="{LS}"') == before  # type: ignore[union-attr]


def test_token_ids_are_no_way_around(tenants: Tenants) -> None:
    body = {"model": MODEL, "token_ids": [3, 4], "sampling_params": {"max_tokens": 1}}
    said: list[tuple[str, dict[str, Any], int]] = [
        ("jobs", {}, 200),
        ("jobs", {"priority": 0}, 403),
        ("jobs", {"priority": 7}, 200),
        ("web", {"priority": -7}, 200),
        ("jobs", {"service_tier": "flex"}, 200),
        ("jobs", {"service_tier": "priority"}, 403),
        ("jobs", {"extra_body": {"priority": 0}}, 403),
        ("jobs", {"extra_body": {"priority": 0}, "priority": 7}, 400),
    ]
    for tenant, fields, status in said:
        with tenants.http(tenant) as client:
            answer = client.post("/inference/v1/generate", json=body | fields)
        assert answer.status_code == status, (tenant, fields, answer.text)


@pytest.mark.covers("Generative scoring", "eager")
@pytest.mark.covers("Tenants", "eager")
def test_scoring_is_no_way_around(tenants: Tenants) -> None:
    """Its handler is none of those that vLLM's others are made of."""
    body = {"model": MODEL, "query": "hi", "items": [" a", " b"], "label_token_ids": [3, 4]}

    def ask(tenant: str, header: str | None = None, **fields: Any) -> httpx.Response:
        with tenants.http(tenant, **({"X-Vllm-Priority": header} if header else {})) as client:
            return client.post("/generative_scoring", json=body | fields)

    urgent = f'qllm_requests_total{{class="{LS}"'
    before = tenants.server.samples(urgent)  # type: ignore[union-attr]
    for fields in ({}, {"priority": 9}, {"service_tier": "flex"}, {"header": "9"}):
        assert ask("jobs", **fields).status_code == 200, fields  # type: ignore[arg-type]
    assert ask("lowered", priority=-100).status_code == 200
    assert tenants.server.samples(urgent) == before  # type: ignore[union-attr]
    refused = [
        ask("jobs", priority=-100),
        ask("jobs", header="-100"),
        ask("jobs", service_tier="priority"),
        ask("modest", priority=-1),
    ]
    assert [answer.status_code for answer in refused] == [403] * 4
    assert {answer.json()["error"]["param"] for answer in refused} == {"priority"}
    many = ask("two", items=[" a"] * 400)
    assert many.status_code == 400 and "400 sequences" in many.text
    assert ask("two").status_code == 200
    tenants.wait_for("qllm_tenant_in_flight", {})


def test_beam_search_is_no_way_around(tenants: Tenants) -> None:
    """vLLM itself runs it with priority 0 whatever it was given."""
    assert tenants.server is not None
    body = {"model": MODEL, "prompt": "hi", "max_tokens": 2, "use_beam_search": True, "n": 2}
    before = tenants.server.samples(f'qllm_requests_total{{class="{LS}"')
    for tenant in ("jobs", "lowered", "modest"):
        with tenants.http(tenant) as client:
            answer = client.post("/v1/completions", json=body)
        assert (answer.status_code, answer.json()["service_tier"]) == (200, "flex")
    assert tenants.server.samples(f'qllm_requests_total{{class="{LS}"') == before


def test_a_program_of_the_same_name_is_another_one(tenants: Tenants) -> None:
    """One tenant's next turn does not take the place of what another one's has left."""
    # The last one takes the place of the first, and of no other.
    turns = [("jobs", "p", 1), ("lowered", "p", 2), ("modest", "p", 3), ("jobs", "p", 3)]
    one = None
    # Nor can a name be made to look like another tenant's.
    forged = {"priority": 9, "vllm_xargs": {"program_id": ["jobs", "p"]}}
    with tenants.http("modest") as client:
        body = {"model": MODEL, "prompt": "hi", "max_tokens": 1, **forged}
        assert client.post("/v1/completions", json=body).status_code == 400
    for token, (tenant, name, kept) in enumerate(turns, 3):
        said = {"priority": 9, "vllm_xargs": {"program_id": name}}
        with tenants.http(tenant) as client:
            body = {"model": MODEL, "prompt": [token] * 1600, "max_tokens": 1, **said}
            client.post("/v1/completions", json=body).raise_for_status()
        one = one or tenants.kept_kv()
        deadline = time.monotonic() + 20
        while (found := tenants.kept_kv()) != pytest.approx(kept * one, rel=0.01):
            assert time.monotonic() < deadline, f"{tenant}: {found}, of one turn: {one}"
            time.sleep(0.05)


def test_anthropic_clients(tenants: Tenants) -> None:
    def ask(key: str, body: Any = None, **headers: str) -> Any:
        client = anthropic.Anthropic(base_url=tenants.url, api_key=key, max_retries=0)
        return client.messages.create(
            model=MODEL, messages=HELLO, max_tokens=2, extra_headers=headers, extra_body=body
        )

    assert ask(tenants.keys["jobs"]).usage.service_tier == "batch"
    assert ask(tenants.keys["modest"]).usage.service_tier == "batch"
    assert ask(tenants.keys["web"], {"service_tier": "standard_only"}).usage.service_tier == (
        "standard"
    )
    for body in ({"service_tier": "fast"}, {"priority": 0}, {"extra_body": {"priority": 0}}):
        with pytest.raises(anthropic.PermissionDeniedError):
            ask(tenants.keys["jobs"], body)
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        ask("zyxwrongkey")
    assert unknown.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    with pytest.raises(anthropic.PermissionDeniedError) as refused:
        ask(tenants.keys["jobs"], **{"X-Vllm-Priority": "0"})
    assert refused.value.body["error"]["type"] == "permission_error"  # type: ignore[index]


def test_who_needs_a_key(tenants: Tenants) -> None:
    with tenants.http(None) as client:
        for path in ("/health", "/metrics", "/version", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        for path in ("/v1/models", "/v1/nothing", "//health"):
            assert client.get(path).status_code == 401, path
        refused = client.post("/v1/completions", json=CHAT)
        assert refused.headers["WWW-Authenticate"] == "Bearer"
    with tenants.http("web") as client:
        assert client.get("/v1/models").status_code == 200
        assert client.post("/tokenize", json={"model": MODEL, "prompt": "hi"}).status_code == 200
        assert client.post("/scale_elastic_ep", json={}).status_code == 403
        assert client.get("/v1/nothing").status_code == 403
    with tenants.http("admin") as client:
        assert client.get("/v1/nothing").status_code == 404
    for wrong in ("zyxwrongkey", "x" * 5000, "qllm-"):
        with pytest.raises(openai.AuthenticationError), tenants.client("none") as client:
            client.with_options(default_headers={"Authorization": f"Bearer {wrong}"}).models.list()


def test_a_gateway_names_tenants(tenants: Tenants) -> None:
    secret = tenants.keys["gateway"]
    for gateway, name, status in (
        (secret, "jobs", 403),
        (secret, "web", 200),
        (secret, "nobody", 401),
        (secret, None, 401),
        (None, "web", 401),
        ("zyxwrongkey", "web", 401),
        (tenants.keys["web"], "web", 401),
    ):
        headers = {"X-Qllm-Gateway": gateway, "X-Qllm-Tenant": name}
        with tenants.http("web", **{k: v for k, v in headers.items() if v}) as client:
            answer = client.post("/v1/chat/completions", json=CHAT | {"service_tier": "priority"})
        assert answer.status_code == status, (name, answer.text)


def test_places_are_held_until_the_stream_ends_or_nobody_reads_it(tenants: Tenants) -> None:
    mine = f'qllm_tenant_in_flight{{class="{LS}",tenant="two"}}'
    first, second = (stream(tenants.client("two")) for _ in range(2))
    tenants.wait_for("qllm_tenant_in_flight", {mine: 2})
    # Whichever API server is asked.
    for _ in range(4):
        with pytest.raises(openai.RateLimitError) as refused, tenants.client("two") as client:
            client.chat.completions.create(**CHAT)
        assert 1 <= int(refused.value.response.headers["Retry-After"]) <= 60
    with tenants.client("two") as client:  # its other class has a limit of its own
        client.chat.completions.create(**CHAT, service_tier="flex")
    first.close()
    tenants.wait_for("qllm_tenant_in_flight", {mine: 1})
    with tenants.client("two") as client:
        client.chat.completions.create(**CHAT)
    second.close()
    tenants.wait_for("qllm_tenant_in_flight", {})


def test_prompts_and_n_count(tenants: Tenants) -> None:
    def ask(n: int, prompts: int) -> None:
        with tenants.client("two") as client:
            client.completions.create(model=MODEL, prompt=["hi"] * prompts, n=n, max_tokens=1)

    ask(2, 1)
    ask(1, 2)
    for n, prompts in ((3, 1), (1, 3), (2, 2)):
        with pytest.raises(openai.BadRequestError, match=f"{n * prompts} sequences"):
            ask(n, prompts)
    with tenants.http("two") as client:
        batch = {"model": MODEL, "messages": [HELLO] * 3, "max_tokens": 1}
        assert client.post("/v1/chat/completions/batch", json=batch).status_code == 400


@pytest.mark.parametrize("n", ["1" + "0" * 17, "1" + "0" * 309, "-1", "0", "1e400", "NaN"])
def test_no_number_is_too_large_to_be_refused(tenants: Tenants, n: str) -> None:
    """In the words of vLLM, before anything is counted."""
    held = stream(tenants.client("web"))
    for path, body in list(PATHS.items())[:3]:
        text = json.dumps({"model": MODEL} | body)[:-1] + f', "n": {n}}}'
        with tenants.http("web") as client:
            answer = client.post(path, content=text, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, (path, answer.text)
    tenants.wait_for(
        "qllm_tenant_in_flight", {f'qllm_tenant_in_flight{{class="{LS}",tenant="web"}}': 1}
    )
    held.close()
    tenants.wait_for("qllm_tenant_in_flight", {})


def test_a_rate_holds_across_api_servers(tenants: Tenants) -> None:
    statuses, waits = [], set()
    for _ in range(6):
        with tenants.http("slow") as client:
            answer = client.post("/v1/chat/completions", json=CHAT)
        statuses.append(answer.status_code)
        waits.add(answer.headers.get("Retry-After"))
    assert statuses == [200, 200, 429, 429, 429, 429]
    assert all(80 <= int(wait) <= 100 for wait in waits - {None})


def test_overload_sheds_the_least_urgent_first(tenants: Tenants) -> None:
    streams = [stream(tenants.client("web")) for _ in range(4)]
    with tenants.client("web") as client:
        with pytest.raises(openai.InternalServerError) as refused:
            client.chat.completions.create(**CHAT, service_tier="flex")
        assert refused.value.status_code == 503
        assert 1 <= int(refused.value.response.headers["Retry-After"]) <= 60
        client.chat.completions.create(**CHAT, service_tier="priority")
        streams += [stream(client) for _ in range(4)]
        with pytest.raises(openai.InternalServerError) as refused:  # beyond its own limit
            client.chat.completions.create(**CHAT, service_tier="priority")
        assert refused.value.status_code == 503
    for each in streams:
        each.close()
    tenants.wait_for("qllm_tenant_in_flight", {})


def test_sizes_are_limited(tenants: Tenants) -> None:
    long = json.dumps(CHAT | {"messages": [{"role": "user", "content": "a" * 200_000}]}).encode()
    with tenants.http("web") as client:
        said = client.post("/v1/chat/completions", content=long)
        assert said.status_code == 413
    with tenants.http("web") as client:
        pieces = (long[i : i + 5000] for i in range(0, len(long), 5000))
        assert client.post("/v1/chat/completions", content=pieces).status_code == 413
    with tenants.http("web", **{"X-Long": "a" * 40_000}) as client:
        assert client.get("/v1/models").status_code == 431
    with tenants.http("web") as client:
        just = CHAT | {"messages": [{"role": "user", "content": "hi"}], "user": "a" * 90_000}
        assert client.post("/v1/chat/completions", json=just).status_code == 200


def test_a_refusal_is_written_down_and_counted(tenants: Tenants) -> None:
    server = tenants.server
    assert server is not None
    key = f'qllm_refusals_total{{class="{LS}",reason="class",tenant="jobs"}}'
    before, start = server.samples().get(key, 0), server.log.stat().st_size
    with tenants.http("jobs", **{"X-Request-Id": "mine-1"}) as client:
        answer = client.post("/v1/chat/completions", json=CHAT | {"priority": 0})
    assert answer.headers["X-Request-Id"] == "mine-1"
    assert server.samples()[key] == before + 1
    deadline = time.monotonic() + 10
    while '"mine-1"' not in (text := server.log.read_bytes()[start:].decode(errors="replace")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (line,) = [line for line in text.splitlines() if '"mine-1"' in line]
    assert json.loads(line[line.index("{") :]) == {
        "event": "refused",
        "tenant": "jobs",
        "class": LS,
        "reason": "class",
        "status": 403,
        "path": "/v1/chat/completions",
        "request_id": "mine-1",
    }


bytes_of_headers = st.binary(max_size=40).map(
    # What HTTP allows in a value, without the spaces around it.
    lambda value: bytes(b for b in value if b >= 32 and b != 127).strip()
)
strange = bytes_of_headers | st.sampled_from(
    [b"", b"Bearer", b"Bearer  x", b"bearer \xff", b"Basic x", b"a" * 20_000, "٣".encode(), b"-1"]
)
names = st.sampled_from(
    [
        "Authorization",
        "x-api-key",
        "X-Qllm-Gateway",
        "X-Qllm-Tenant",
        "X-Request-Id",
        "X-Vllm-Priority",
        "Expect",
        "Origin",
        "Content-Type",
    ]
)
bodies = st.binary(max_size=60) | st.fixed_dictionaries(
    {"model": st.just(MODEL), "messages": st.just(HELLO), "max_tokens": st.just(1)},
    optional={
        "priority": st.integers(-(2**70), 2**70) | st.none() | st.text(max_size=5),
        "service_tier": st.sampled_from(["auto", "priority", "flex", "gold", None, 3, []]),
        "n": st.integers(-3, 300) | st.none() | st.text(max_size=2),
        "background": st.booleans(),
    },
).map(lambda body: json.dumps(body).encode())


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    tenant=st.sampled_from(["web", "lowered", "modest", "two", None]),
    sent=st.lists(st.tuples(names, strange), max_size=3),
    body=bodies,
    path=st.sampled_from([*PATHS, "/v1/messages", "/v1/models", "/v1/systemone", "/x"]),
)
def test_whatever_is_sent_is_answered_or_refused(
    tenants: Tenants, tenant: str | None, sent: list[tuple[str, bytes]], body: bytes, path: str
) -> None:
    headers = [(b"Content-Type", b"application/json")]
    if tenant is not None:
        headers.append((b"Authorization", f"Bearer {tenants.keys[tenant]}".encode()))
    headers += [(name.encode(), value) for name, value in sent]
    with tenants.http(None) as client:
        answer = client.post(path, content=body, headers=headers)
    assert answer.status_code < 500 or path == "/v1/systemone", answer.text[:300]
    assert not any(key in answer.text for key in tenants.keys.values())


def test_afterwards_nothing_is_held(tenants: Tenants) -> None:
    tenants.wait_for("qllm_tenant_in_flight", {})
    tenants.wait_for("qllm_requests_running", {})


def until(status: int, ask: Any) -> None:
    """Ask until the answer has this status; each server reads the file within a second."""
    deadline, in_a_row = time.monotonic() + 20, 0
    while in_a_row < 4:  # both servers
        in_a_row = in_a_row + 1 if ask().status_code == status else 0
        assert time.monotonic() < deadline, ask().text
        time.sleep(0.1)


def test_the_file_is_read_again(tenants: Tenants, capsys: pytest.CaptureFixture[str]) -> None:
    def ask() -> httpx.Response:
        with tenants.http("late") as client:
            return client.get("/v1/models")

    file = str(tenants.file)
    assert keys_command.main(["add", "late", "--classes", BE, "--file", file]) == 0
    tenants.keys["late"] = capsys.readouterr().out.strip()
    until(200, ask)
    good = tenants.file.read_text()
    tenants.file.write_text(good.replace(BE, "best_efort"))
    refused = 'qllm_tenants_reloads_total{outcome="refused"}'
    deadline = time.monotonic() + 20
    assert tenants.server is not None
    while tenants.server.samples().get(refused) != 2:  # each API server reads the file itself
        assert time.monotonic() < deadline, tenants.server.samples("qllm_tenants")
        ask()
    until(200, ask)
    assert "best_efort" in tenants.server.log.read_text(errors="replace")
    tenants.file.write_text(good)
    assert keys_command.main(["revoke", "late", "sha256:", "--file", file]) == 0
    until(401, ask)


STATE = "document.getElementById('state').dataset.state"


def give_key(tab: Tab, key: str) -> None:
    """As a person does: type it, and press Enter."""
    tab.evaluate("document.getElementById('key-value').focus()")
    tab.call("Input.insertText", text=key)
    tab.press("Enter")


@pytest.mark.covers("Status page", "eager")
@pytest.mark.covers("Tenants", "eager")
def test_the_status_page_is_for_operators(tenants: Tenants, tab: Tab) -> None:
    server = tenants.server
    assert server is not None
    for path in ("/qllm/status", "/qllm/timeline"):
        for tenant, expected in ((None, 401), ("zyxwrongkey", 401), ("web", 403)):
            with tenants.http(tenant) as client:
                answer = client.get(path)
            assert answer.status_code == expected and "jobs" not in answer.text
    with tenants.http(None) as client:
        page = client.get("/qllm/")
        assert page.status_code == 200 and "web" not in page.text
    refusals = 'qllm_refusals_total{class="none",reason="%s",tenant="%s"}'
    tab.look(1440, 900)
    tab.open(f"{tenants.url}/qllm/")
    tab.wait_for(f"{STATE} === 'key'")
    before = server.samples()[refusals % ("no_key", "none")]
    give_key(tab, tenants.keys["web"])
    tab.wait_for("document.getElementById('key-reason').textContent.includes('for operators')")
    wrong = server.samples()[refusals % ("operator", "web")]
    time.sleep(5)  # it would have asked twice more
    after = server.samples()
    assert after[refusals % ("operator", "web")] == wrong
    assert after[refusals % ("no_key", "none")] == before
    # Nothing is shown to who may not see it, and nothing is there.
    assert tab.evaluate("document.getElementById('main').hidden")
    assert tab.evaluate("document.querySelectorAll('.card, tbody tr').length") == 0
    if directory := os.environ.get("STATUS_PICTURES"):
        tab.picture(Path(directory, "key.png"))
    give_key(tab, tenants.keys["admin"])
    tab.wait_for(f"{STATE} === 'serving' && document.getElementById('tenants').rows.length > 0")
    # The timeline is off here: the page says so, and how to turn it on.
    assert "--priority-config '{\"timeline\": true}'" in tab.text("#timeline-off")
    assert tab.evaluate("document.getElementById('timeline').hidden")
    cells = "[...row.cells].map((cell) => cell.innerText.trim())"
    rows = tab.evaluate(f"[...document.getElementById('tenants').rows].map((row) => {cells})")
    samples = server.samples()
    numbers = {(row[0], row[1]): [int(n) for n in row[2:5]] for row in rows}
    for (tenant, cls), (requests, in_flight, refused) in numbers.items():
        tenant, cls = tenant.replace("(not known)", "none"), cls.replace("(none)", "none")
        label = f'{{class="{cls}",tenant="{tenant}"}}'
        assert requests == samples.get(f"qllm_tenant_requests_total{label}", 0)
        assert in_flight == samples.get(f"qllm_tenant_in_flight{label}", 0)
        said = [
            n
            for key, n in samples.items()
            if key.startswith(f'qllm_refusals_total{{class="{cls}",')
            and key.endswith(f'tenant="{tenant}"}}')
        ]
        assert refused == sum(said)
    assert ("web", "(none)") in numbers and ("(not known)", "(none)") in numbers
    assert not [
        key for key in tenants.keys.values() if key in tab.evaluate("document.body.outerHTML")
    ]
    assert tab.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    if directory := os.environ.get("STATUS_PICTURES"):
        tab.picture(Path(directory, "tenants.png"))
    # Refusals are on the console: that is the browser's doing.
    assert all("the server responded with a status of 40" in p for p in tab.problems), tab.problems
    tab.open("about:blank")
    tab.problems.clear()
