# SPDX-License-Identifier: Apache-2.0
"""The two files of a batch: bad lines are named, torn ones are asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_qllm.batch import BatchError
from vllm_qllm.batch.answer_file import AnswerFile
from vllm_qllm.batch.request_file import RequestFile

CHAT = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"n": 1}}


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_requests_are_best_effort_unless_they_say(tmp_path: Path) -> None:
    lines = [
        CHAT,
        CHAT | {"custom_id": "b", "body": {"service_tier": "priority"}},
        CHAT | {"custom_id": "c", "body": {"priority": 0}},
        CHAT | {"custom_id": "d", "url": "/v1/embeddings", "body": {"input": "hi"}},
    ]
    bodies = [r.body for r in RequestFile(written(tmp_path / "in", *lines), "flex")]
    assert bodies[0] == {"n": 1, "service_tier": "flex"}
    assert bodies[1:] == [line["body"] for line in lines[1:]]


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        *(("custom_id", v, "not empty") for v in ("", None, 3)),
        *(("method", v, "POST") for v in ("GET", None, 3)),
        *(("url", v, "/v1/") for v in ("http://other/v1/x", "/metrics", None, "/v1/a\nb")),
        *(("body", v, "object") for v in ([], None, "a")),
        ("body", {"stream": True}, "false"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, field: str, value: Any, allowed: str) -> None:
    path = written(tmp_path / "in", CHAT, CHAT | {"custom_id": "b", field: value})
    with pytest.raises(BatchError, match=rf"line 2: {field}") as caught:
        RequestFile(path, "flex")
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"{", "line 1 is not JSON"),
        (b"[]", "custom_id"),
        (b"\xff", "decode"),
        (b"[" * 9**5, "JSON"),
    ],
)
def test_what_is_no_request(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "in"
    path.write_bytes(content)
    with pytest.raises(BatchError, match=word):
        RequestFile(path, "flex")
    with pytest.raises(BatchError, match="nowhere"):
        RequestFile(tmp_path / "nowhere", "flex")


def test_an_id_that_is_there_twice(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="'a' is there before"):
        RequestFile(written(tmp_path / "in", CHAT, CHAT), "flex")


@given(cut=st.integers(0, 400))
def test_a_crash_anywhere_costs_one_line_at_most(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "out"
    file = AnswerFile(path)
    for name in "abc":
        file.add(name, 200, None, {"text": "ä\n" * 5})
    file.close()
    whole = path.read_bytes()
    left = whole[: min(cut, len(whole))]
    path.write_bytes(left)
    again = AnswerFile(path)
    assert again.answered == set("abc"[: left.count(b"\n")])
    for name in "abc"[left.count(b"\n") :]:
        again.add(name, 200, None, {"text": "ä\n" * 5})
    again.close()
    assert path.read_bytes() == whole


def test_errors_are_counted_again(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "out")
    file.add("a", 400, "id", {"error": {}})
    with pytest.raises(BatchError, match="another program"):
        AnswerFile(tmp_path / "out")
    file.close()
    assert AnswerFile(tmp_path / "out").failed == 1


@pytest.mark.parametrize("line", ["[]", "{}", "3", "{", '{"custom_id": "a", "response": null}'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "out"
    path.write_text(f"{line}\nmore")
    with pytest.raises(BatchError, match="line 1 is not an answer"):
        AnswerFile(path)
    assert path.read_text() == f"{line}\nmore"
