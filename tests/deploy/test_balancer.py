# SPDX-License-Identifier: Apache-2.0
"""What nginx lets through, and what it makes of it: no model is needed for that."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.balancer import TRUSTED, Balancer, balance
from tests.deploy.echo import COME, HELD, LET_GO, echo
from tests.serve.server import free_port
from tests.spellings import ask_for, disguises, spellings
from vllm_qllm.ray.paths import is_open

MIB = 1 << 20
Answer = tuple[int, dict[str, str], Any]


@pytest.fixture(scope="module")
def balancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    log = tmp_path_factory.mktemp("nginx") / "log"
    with echo() as one, echo() as two, balance([one, two], log) as running:
        yield running


def ask(
    balancer: Balancer,
    path: str = "/v1/completions",
    method: str = "POST",
    body: bytes = b"{}",
    headers: dict[str, str] | None = None,
    source: str = "127.0.0.1",
) -> Answer:
    """Status, headers and body of an answer."""
    host = balancer.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=20, source_address=(source, 0))
    try:
        connection.request(method, path, body if method == "POST" else None, headers or {})
        response = connection.getresponse()
        read = response.read()
        return response.status, dict(response.getheaders()), json.loads(read) if read else None
    finally:
        connection.close()


def logged(balancer: Balancer, answer: Answer) -> dict[str, Any]:
    """The line of the access log about the request that was answered so."""
    return balancer.logged(answer[1]["X-Request-Id"])


def replicas_of(balancer: Balancer, answers: list[Answer]) -> set[str]:
    """Where these were answered, as host:port."""
    return {logged(balancer, answer)["replica"] for answer in answers}


@pytest.mark.parametrize(
    "name", ["X-Vllm-Priority", "x-VLLM-priority", "X-Qllm-Gateway", "X-Qllm-Tenant"]
)
def test_only_a_trusted_hop_names_a_class_or_a_tenant(balancer: Balancer, name: str) -> None:
    assert name.lower() not in ask(balancer, headers={name: "-7"})[2]["headers"]
    passed = ask(balancer, headers={name: "-7"}, source=TRUSTED)[2]["headers"]
    assert passed[name.lower()] == "-7"
    # A name that some servers take for the same never arrives.
    spelled = ask(balancer, headers={name.replace("-", "_"): "-7"})[2]["headers"]
    assert "-7" not in spelled.values()


def test_a_key_goes_on_and_is_not_logged(balancer: Balancer) -> None:
    said = {"Authorization": "Bearer key-of-a-tenant"}
    answer = ask(balancer, "/v1/completions?api_key=key-of-a-tenant", headers=said)
    status, _, body = answer
    assert (status, body["headers"]["authorization"]) == (200, "Bearer key-of-a-tenant")
    assert logged(balancer, answer)["path"] == "/v1/completions"
    assert "key-of-a-tenant" not in balancer.log.read_text()


def test_every_request_has_an_id(balancer: Balancer) -> None:
    answer = _, headers, body = ask(balancer, headers={"X-Request-Id": "job-17:3"})
    assert headers["X-Request-Id"] == body["headers"]["x-request-id"] == "job-17:3"
    assert logged(balancer, answer)["id"] == "job-17:3"
    for bad in ("a b", "x" * 129, '"; drop', ""):
        _, headers, body = ask(balancer, headers={"X-Request-Id": bad})
        made = headers["X-Request-Id"]
        assert made == body["headers"]["x-request-id"] != bad
        assert len(made) == 32


def test_a_request_may_have_eight_mebibytes(balancer: Balancer) -> None:
    status, _, body = ask(balancer, body=b"x" * (8 * MIB))
    assert (status, body["size"]) == (200, 8 * MIB)
    status, headers, body = ask(balancer, body=b"x" * (8 * MIB + 1))
    assert status == body["error"]["code"] == 413
    assert "larger" in body["error"]["message"] and headers["X-Request-Id"]


def test_headers_have_a_limit(balancer: Balancer) -> None:
    assert ask(balancer, headers={"X-Long": "x" * 7000})[0] == 200
    for path, headers, expected in (
        ("/v1/completions", {"X-Long": "x" * 9000}, 431),
        ("/v1/" + "x" * 9000, {}, 414),
    ):
        status, _, body = ask(balancer, path, headers=headers)
        assert status == body["error"]["code"] == expected


# What a replica has beside the API, and what of the API is for who runs it.
CLOSED = (
    *(
        "/metrics",
        "/docs",
        "/invocations",
        "/qllm",
        "/qllm/status",
        "/sleep",
        "/pause",
        "/tokenize",
    ),
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
)
OPENED = ("/v1/models", "/v1/chat/completions", "/health")


def received(balancer: Balancer, target: str) -> str | None:
    """What a replica was asked for when nginx was asked for ``target``, None for nothing."""
    status, body = ask_for(balancer.url, target)
    if status != 200:
        # Refused by nginx itself, in the form that clients know.
        assert status == json.loads(body)["error"]["code"] in (400, 404), target
        return None
    path: str = json.loads(body)["path"]
    return path


@pytest.mark.parametrize("path", CLOSED)
def test_what_is_not_the_api_stays_inside_however_it_is_spelled(
    balancer: Balancer, path: str
) -> None:
    status, _, body = ask(balancer, path)
    assert status == body["error"]["code"] == 404
    names = dict.fromkeys(spellings(path))
    for opened in OPENED:
        names |= dict.fromkeys(disguises(path, opened))
    for name in names:
        found = received(balancer, name)
        if found is not None:
            # Only what nobody can read in two ways, and then not as this path.
            plain = found.partition("?")[0]
            assert is_open(plain), (name, found)
            assert plain != path and not plain.startswith(f"{path}/"), (name, found)


@pytest.mark.parametrize("path", OPENED)
def test_a_replica_is_asked_for_what_was_matched(balancer: Balancer, path: str) -> None:
    for query in ("", "?", "?after=%2e%2e/..//x", "?a=b?c#d"):
        assert received(balancer, path + query) == path + query
    for name in dict.fromkeys(spellings(path)):
        found = received(balancer, name)
        if found is not None:
            assert name.removeprefix("http://127.0.0.1") == found
            assert is_open(found.partition("?")[0]), (name, found)


def test_work_is_spread(balancer: Balancer) -> None:
    assert len(replicas_of(balancer, [ask(balancer) for _ in range(10)])) == 2


def test_the_replica_with_fewer_open_requests_is_asked(balancer: Balancer) -> None:
    COME.clear()
    LET_GO.clear()
    with ThreadPoolExecutor() as pool:
        held = pool.submit(ask, balancer, HELD)
        try:
            assert COME.wait(20)
            others = replicas_of(balancer, [ask(balancer) for _ in range(6)])
        finally:
            LET_GO.set()
        assert held.result()[0] == 200
    (busy,) = replicas_of(balancer, [held.result()])
    assert len(others) == 1 and busy not in others


def test_without_a_replica_the_error_is_one_that_clients_know(tmp_path: Path) -> None:
    # Ports that nobody listens on.
    with balance(["127.0.0.1:1", "127.0.0.1:2"], tmp_path / "log") as balancer:
        status, headers, body = ask(balancer)
        assert status == body["error"]["code"] == 502
        assert headers["Content-Type"] == "application/json"
        assert headers["Retry-After"] == "2" and headers["X-Request-Id"]
        assert balancer.left_out() == [], "left out both"


def test_a_replica_that_is_not_well_is_left_out_and_comes_back(tmp_path: Path) -> None:
    port = free_port()
    ill = f"127.0.0.1:{port}"
    with echo() as well, balance([well, ill], tmp_path / "log") as balancer:

        def asked(count: int) -> set[str]:
            answers = [ask(balancer) for _ in range(count)]
            assert {status for status, _, _ in answers} == {200}
            return replicas_of(balancer, answers)

        def wait_until_asked(*replicas: str) -> None:
            # A reload begins when replicas.conf has changed, and takes a moment.
            deadline = time.monotonic() + 20
            while (found := asked(4)) != set(replicas):
                assert time.monotonic() < deadline, found

        balancer.wait_until_left_out(ill)
        wait_until_asked(well)
        with echo(port):
            balancer.wait_until_left_out()
            wait_until_asked(well, ill)
