# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.batch`` on files of any content: what it leaves, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.batch.scripted import GOOD, Scripted, is_answered, lines_of, raw, results, run, scripted

OK, BAD = raw(200), raw(400)
KEYS = {"id", "custom_id", "response", "error"}
BEGINNING = b'{"id": "batch_req_'
IDS = ["a", "b", "ä", "\ud800", '"', "\n"]


@pytest.fixture(scope="module")
def shared() -> Iterator[Scripted]:
    """One server for all examples."""
    with scripted() as running:
        yield running


def line(name: Any, body: Any, url: Any = "/v1/completions") -> bytes:
    """A line of an input, with what need not fit."""
    data = {"custom_id": name, "method": "POST", "url": url, "body": body}
    return json.dumps(data).encode()


def written(name: str, good: bool) -> bytes:
    """A line of an output."""
    response = {"status_code": 200 if good else 400, "request_id": None, "body": GOOD}
    data = {"id": "batch_req_7", "custom_id": name, "response": response, "error": None}
    return json.dumps(data).encode()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
bodies = st.just({"prompt": "hi"}) | st.dictionaries(st.text(), values, max_size=3)
fit = st.builds(line, st.sampled_from(IDS), bodies)
refused = st.builds(
    line, st.sampled_from(IDS), st.just({"script": [BAD], "name": "refused"}) | values
)
odd = st.builds(line, st.sampled_from(IDS) | values, values, st.text() | values)
inputs = st.lists(fit | refused | odd | st.binary(), max_size=8).map(b"\n".join)
ours = st.builds(written, st.sampled_from([*IDS, "other"]), st.booleans())
# Mostly what a batch leaves, and sometimes anything.
torn = st.builds(lambda whole, at: whole[:at], ours, st.integers(0, 200))
outputs = st.none() | st.builds(
    lambda lines, tail: b"".join(part + b"\n" for part in lines) + tail,
    st.lists(ours, max_size=3) | st.lists(ours | st.binary(), max_size=3),
    st.just(b"") | torn | ours | st.binary(),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(asked=inputs, held=outputs, again=st.booleans())
def test_nothing_is_lost(
    shared: Scripted,
    tmp_path_factory: pytest.TempPathFactory,
    asked: bytes,
    held: bytes | None,
    again: bool,
) -> None:
    """Each id ends with one line, nothing that was there goes, and status 0 says all is well."""
    path = tmp_path_factory.mktemp("batch")
    source, out = path / "in", path / "out"
    source.write_bytes(asked)
    if held is not None:
        out.write_bytes(held)
    code = run(shared, source, out)
    if again:
        assert run(shared, source, out) == code, "a second run says something else"
    assert source.read_bytes() == asked
    after = out.read_bytes() if out.exists() else None
    ids, nameless = expected(asked)
    if code == 2:  # refused before anything was sent
        assert after == held or (held is None and not ids)
        assert ids == set() or not is_ours(held or b"")
        return
    assert after is not None
    kept = held or b""
    if not is_ours(kept):  # the torn end of a line of this batch's
        kept = kept[: kept.rfind(b"\n") + 1]
        torn = (held or b"")[len(kept) :]
        assert torn.startswith(BEGINNING) or BEGINNING.startswith(torn)
    assert after.startswith(kept)
    old, new = parsed(kept), parsed(after[len(kept) :])
    for name in ids:
        assert sum(entry["custom_id"] == name for entry in new) == (name not in names(old))
    assert len(new) == len(names(new)) and names(new) <= ids
    good = {entry["custom_id"] for entry in (*old, *new) if is_answered(entry)}
    assert (code == 0) == (ids <= good and not nameless)


def parsed(text: bytes) -> list[dict[str, Any]]:
    """The lines of an output; what was there may lack its last end."""
    return [json.loads(part) for part in text.splitlines() if part]


def names(entries: list[dict[str, Any]]) -> set[str]:
    """Whose they are."""
    return {entry["custom_id"] for entry in entries}


def expected(asked: bytes) -> tuple[set[str], int]:
    """The ids in an input, and the number of lines that have none of their own."""
    ids: set[str] = set()
    nameless = 0
    for part in asked.split(b"\n"):
        if not part.strip():
            continue
        try:
            name = json.loads(part)["custom_id"]
            if not isinstance(name, str) or not name or name in ids:
                raise ValueError(name)
            ids.add(name)
        except (ValueError, TypeError, KeyError):
            nameless += 1
    return ids, nameless


def is_ours(held: bytes) -> bool:
    """Whether an output is whole lines of answers, nothing torn."""
    try:
        return all(json.loads(part).keys() >= KEYS for part in held.splitlines())
    except (ValueError, AttributeError):
        return False


def test_status_0_says_that_each_has_an_answer(
    server: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_bytes(lines_of({"a": [OK], "b": [OK]}))
    assert run(server, source, out) == 0
    assert "2 of 2 answered, 2 of them now; 0 errors" in capsys.readouterr().out
    # One more line, which is no request: all others are answered still.
    source.write_bytes(source.read_bytes() + b"{\n" + lines_of({"c": [OK]}))
    assert run(server, source, out) == 1
    said = capsys.readouterr()
    assert "in, line 3 is not JSON" in said.err and "3 of 3 answered, 1 of them now" in said.out
    # An error of another batch in the file says nothing about this one.
    source.write_bytes(lines_of({"a": [OK]}))
    out.write_bytes(out.read_bytes() + written("other", False) + b"\n")
    assert run(server, source, out) == 0
    assert server.tries == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    "body", ['{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 500 + "]" * 500]
)
def test_one_odd_line_does_not_end_a_batch(server: Scripted, tmp_path: Path, body: str) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    odd = f'{{"custom_id": "odd", "method": "POST", "url": "/v1/x", "body": {body}}}\n'
    source.write_bytes(odd.encode() + lines_of({"a": [OK], "b": [OK]}))
    assert run(server, source, out) == (0 if "ud800" in body else 1)
    assert set(results(out)) == {"odd", "a", "b"} and is_answered(results(out)["b"])


@pytest.mark.parametrize(
    "options", [["--url", "localhost:8000"], ["--url", "ftp://a"], ["--url", ""]]
)
def test_a_url_that_is_none(tmp_path: Path, options: list[str], server: Scripted) -> None:
    (tmp_path / "in").write_bytes(lines_of({"a": [OK]}))
    with pytest.raises(SystemExit):
        run(server, tmp_path / "in", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["a\n", "ä", "a\x7f"])
def test_a_key_that_is_none(
    tmp_path: Path, server: Scripted, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    (tmp_path / "in").write_bytes(lines_of({"a": [OK]}))
    assert run(server, tmp_path / "in", tmp_path / "out") == 2


def test_a_process_substitution(server: Scripted, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(lines_of({"a": [OK], "b": [OK], "c": [OK]}))
    command = f'"{sys.executable}" -m vllm_qllm.batch -i <(cat in) -o out --url {server.url}'
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert "3 of 3 answered, 3 of them now; 0 errors" in ended.stdout
    assert all(map(is_answered, results(tmp_path / "out").values()))
