# SPDX-License-Identifier: Apache-2.0
"""A server that has too much to do, fails, or goes away for a while; and one that says anything."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.batch.scripted import (
    GOOD,
    HANG,
    HANG_UP,
    Scripted,
    is_answered,
    lines_of,
    raw,
    results,
    run,
)
from vllm_qllm.batch import retry
from vllm_qllm.batch.attempt import BROKEN_OFF, NOT_NOW

OK = raw(200)
# Of which HTTP says that they have no body.
EMPTY = {204, 205, 304}


def batch(
    server: Scripted, path: Path, scripts: dict[str, list[str]], *options: str, url: str = ""
) -> tuple[int, dict[str, bool]]:
    """Exit status, and whether each request has an answer."""
    source, out = path / "in", path / "out"
    source.write_bytes(lines_of(scripts, **({"url": url} if url else {})))
    code = run(server, source, out, *options)
    return code, {name: is_answered(line) for name, line in results(out).items()}


def test_what_another_try_may_change_is_tried_again(server: Scripted, tmp_path: Path) -> None:
    half = raw(200, GOOD, length=1000)
    asked: dict[str, tuple[list[str], int, bool]] = {
        "at once": ([OK], 1, True),
        "429": ([raw(429), OK], 2, True),
        "503": ([raw(503), OK], 2, True),
        "500": ([raw(500), OK], 2, True),
        "502": ([raw(502), raw(502), OK], 3, True),
        "hangs up": ([HANG_UP, OK], 2, True),
        "half a body": ([half, half, OK], 3, True),
        "always 500": ([raw(500)], 3, False),
        "always 502": ([raw(502)], 3, False),
        "always hangs up": ([HANG_UP], 3, False),
        "always half a body": ([half], 3, False),
        "no HTTP": (["what?\r\n"], 3, False),
        "400": ([raw(400)], 1, False),
        "422": ([raw(422), OK], 1, False),
    }
    code, got = batch(server, tmp_path, {name: script for name, (script, _, _) in asked.items()})
    assert code == 1
    assert got == {name: good for name, (_, _, good) in asked.items()}
    assert server.tries == {name: tries for name, (_, tries, _) in asked.items()}
    # And all of it is known when the command is run again.
    assert batch(server, tmp_path, {name: script for name, (script, _, _) in asked.items()})[0] == 1
    assert server.tries == {name: tries for name, (_, tries, _) in asked.items()}


def test_every_status(server: Scripted, tmp_path: Path) -> None:
    """Each means the same for every request; only one of success is an answer."""
    passing = {*NOT_NOW, *BROKEN_OFF, 500, *range(100, 200)}
    statuses = [s for s in range(100, 600) if s != 401]
    scripts = {
        str(s): [raw(s, b"" if s in EMPTY or s < 200 else GOOD), *([OK] if s in passing else [])]
        for s in statuses
    }
    code, got = batch(server, tmp_path, scripts, "--concurrency", "100")
    assert code == 1
    good = {s for s in range(200, 300) if s not in EMPTY} | passing
    assert got == {str(s): s in good for s in statuses}
    assert server.tries["429"] == server.tries["502"] == 2 and server.tries["302"] == 1


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        *(("/v1/x", body) for body in (b"", b"<html>", b'{"a": 1', b'"text"', b"3", b"null")),
        *(("/v1/x", body) for body in (b'{"a": NaN}', b"[" * 10**5, b"\xff\xfe", {"error": "no"})),
        *(("/v1/completions", body) for body in ({}, [], {"choices": []}, {"choices": [3]})),
        ("/v1/completions", {"choices": None}),
        ("/v1/completions", {"data": []}),
        ("/v1/completions", {"choices": [{"finish_reason": "abort"}]}),
        ("/v1/chat/completions", {"choices": [{"finish_reason": "stop"}], "error": {"a": 1}}),
        ("/v1/embeddings", GOOD),
        ("/v1/responses", GOOD),
        *(("/v1/responses", {"output": [], "status": s}) for s in ("queued", "failed", None)),
    ],
)
def test_success_without_an_answer(
    server: Scripted, tmp_path: Path, url: str, answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "MAX_WAIT", 0.01)
    scripts = {"bad": [raw(200, answer)], "late": [raw(200, answer), raw(200, good(url))]}
    code, got = batch(server, tmp_path, scripts, url=url)
    assert (code, got) == (1, {"bad": False, "late": True})
    line = results(tmp_path / "out")["bad"]
    assert line["response"] is None and line["error"]["message"].startswith("status 200, but")


def good(url: str) -> dict[str, object]:
    """What vLLM would answer at this path, as far as it matters."""
    return GOOD | {"data": [], "output": [], "status": "completed"}


def test_a_redirect_is_an_error_that_says_where(server: Scripted, tmp_path: Path) -> None:
    place = {"Location": "https://elsewhere/login"}
    code, got = batch(server, tmp_path, {str(s): [raw(s, GOOD, place)] for s in (301, 307, 308)})
    assert code == 1 and not any(got.values())
    body = results(tmp_path / "out")["307"]["response"]["body"]
    assert "redirects to https://elsewhere/login" in body["error"]["message"]


def test_who_is_told_to_wait_makes_all_wait(server: Scripted, tmp_path: Path) -> None:
    scripts = {"first": [raw(429, GOOD, {"Retry-After": "1"}), OK]}
    scripts |= {str(n): [OK] for n in range(20)}
    code, _ = batch(server, tmp_path, scripts, "--concurrency", "3")
    assert code == 0
    # At most those that were under way, of three clients, come before the pause.
    assert sum(at < server.times[0] + 0.95 for at in server.times) <= 6


@given(text=st.text() | st.integers().map(str) | st.datetimes().map(format_datetime))
def test_no_server_makes_it_wait_for_long(text: str) -> None:
    seconds = retry.told(text)
    assert seconds is None or 0 <= seconds <= retry.MAX_WAIT


def test_what_a_server_may_say_about_waiting() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    assert retry.told("7") == 7 and retry.told(" 7 ") == 7
    assert retry.told("86400") == retry.told("9" * 5000) == retry.MAX_WAIT
    assert (retry.told("0" * 12 + "30"), retry.told("0" * 12)) == (30, 0)
    assert retry.told(soon) == pytest.approx(20, abs=2)
    assert retry.told("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [retry.told(text) for text in (None, "", "soon", "-3", "²", "1e9")] == [None] * 6


@pytest.mark.parametrize("header", [None, "0", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"])
def test_no_server_makes_it_ask_without_a_pause(header: str | None) -> None:
    now = [0.0]
    waiting = retry.Retry(1e9, lambda: now[0])
    for times in range(1, 12):
        waiting.later(waiting.now(), header)
        pause = waiting.not_before - now[0]
        assert pause == retry.backoff(times) > 0
        now[0] += pause
    waiting.answered()
    waiting.later(waiting.now(), "30")
    assert waiting.not_before - now[0] == 30


def test_patience_ends(
    server: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = raw(503, GOOD, {"Retry-After": "1"})
    code, got = batch(server, tmp_path, {"a": [refused]}, "--patience", "0.5")
    assert (code, got) == (2, {})
    assert "too long (status 503); run it again" in capsys.readouterr().err


@pytest.mark.parametrize("health", [HANG_UP, raw(503)])
def test_a_server_that_is_down_is_not_the_requests_fault(
    server: Scripted, tmp_path: Path, health: str
) -> None:
    """What stands before it takes a connection and drops it, for every request."""
    server.health = health
    code, got = batch(server, tmp_path, {"a": [HANG_UP], "b": [HANG_UP]}, "--patience", "1")
    assert (code, got) == (2, {})


def test_a_request_may_take_longer_than_patience(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow one is under way, while others are told to wait for longer than patience."""
    monkeypatch.setattr(retry, "MAX_WAIT", 0.2)
    slow = {"slow": [HANG, OK]}
    busy = {str(n): [*[raw(429, GOOD, {"Retry-After": "0"})] * 3, OK] for n in range(2)}
    began = time.monotonic()
    code, got = batch(server, tmp_path, slow | busy, "--patience", "0.1", "--timeout", "2")
    assert (code, got) == (0, {"slow": True, "0": True, "1": True})
    assert 2 <= time.monotonic() - began < 20 and server.tries["slow"] == 2


def test_what_is_never_answered_is_an_error_in_the_end(server: Scripted, tmp_path: Path) -> None:
    code, got = batch(server, tmp_path, {"a": [HANG], "b": [OK]}, "--timeout", "0.3")
    assert (code, got) == (1, {"a": False, "b": True}) and server.tries["a"] == 3
    assert "within 0.3 s" in results(tmp_path / "out")["a"]["error"]["message"]


def test_a_key_that_is_not_known_ends_it(
    server: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = {str(n): [raw(401)] for n in range(5)}
    assert batch(server, tmp_path, scripts, "--concurrency", "3") == (2, {})
    assert "OPENAI_API_KEY" in capsys.readouterr().err
    assert sum(server.tries.values()) <= 3
