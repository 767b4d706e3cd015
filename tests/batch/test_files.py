# SPDX-License-Identifier: Apache-2.0
"""The two files of a batch: bad lines are named, torn ones asked again, others left alone."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.batch.scripted import GOOD
from vllm_qllm.batch import BatchError
from vllm_qllm.batch.answer import Answer, failed
from vllm_qllm.batch.answer_file import AnswerFile
from vllm_qllm.batch.request import Request
from vllm_qllm.batch.request_file import MAX_COMPLAINTS, RequestFile

CHAT = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"n": 1}}
IDS = frozenset("abc")


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def requests(path: Path) -> list[Request]:
    return list(RequestFile(path, "flex").without(set()))


def answer(status: int = 200) -> Answer:
    return Answer({"status_code": status, "request_id": None, "body": GOOD | {"text": "ä\n" * 5}})


def test_requests_are_best_effort_unless_they_say(tmp_path: Path) -> None:
    lines = [
        CHAT,
        CHAT | {"custom_id": "b", "body": {"service_tier": "priority"}},
        CHAT | {"custom_id": "c", "body": {"priority": 0}},
        CHAT | {"custom_id": "d", "url": "/v1/embeddings", "body": {"input": "hi"}},
        CHAT | {"custom_id": "e", "body": {"extra_body": {"service_tier": "priority"}}},
        CHAT | {"custom_id": "f", "body": {"extra_body": {"priority": 0}, "service_tier": None}},
        CHAT | {"custom_id": "g", "url": "/v1/messages", "body": {"service_tier": None}},
    ]
    bodies = [json.loads(r.data) for r in requests(written(tmp_path / "in", *lines))]
    assert bodies[0] == {"n": 1, "service_tier": "flex"}
    assert bodies[-1] == {"service_tier": "flex"}
    assert bodies[1:-1] == [line["body"] for line in lines[1:-1]]


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        *(("method", v, "POST") for v in ("GET", None, 3)),
        *(("url", v, "/v1/") for v in ("http://other/v1/x", "/metrics", None, "/v1/a\nb", "/v1/")),
        *(
            ("url", v, "/v1/")
            for v in ("/v1/[", "/v1/\ud800", "/v1/%2e%2e/x", "/v1/" + "a" * 10**5)
        ),
        *(("url", v, "/v1/") for v in ("/v1/../x", "/v1/a/..", "/v1/./x", "/v1//x", "/v1/x?y=1")),
        *(("body", v, "object") for v in ([], None, "a")),
        ("body", {"a": float("nan")}, "JSON"),
        ("body", {"a": [-float("inf")]}, "JSON"),
        ("body", {"stream": True}, "false"),
        ("body", {"background": True}, "false"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, field: str, value: Any, allowed: str) -> None:
    path = written(tmp_path / "in", CHAT, CHAT | {"custom_id": "b", field: value})
    good, bad = requests(path)
    assert not good.problem
    assert bad.problem.startswith(f"line 2: {field}") and allowed in bad.problem
    without = CHAT | {"custom_id": "c"}
    del without[field]
    assert "missing" in requests(written(path, without))[0].problem


def test_half_a_surrogate_is_the_servers_to_judge(tmp_path: Path) -> None:
    path = written(tmp_path / "in", CHAT | {"custom_id": "\udc00", "body": {"prompt": "\ud800"}})
    (request,) = requests(path)
    assert not request.problem and json.loads(request.data)["prompt"] == "\ud800"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"{", "line 1 is not JSON"),
        (b"[]", "custom_id"),
        (b"\n\n{}", "line 3 custom_id"),
        *((json.dumps({"custom_id": v}).encode(), "custom_id") for v in ("", None, 3)),
        (b"\xff", "JSON"),
        (b"[" * 9**5, "JSON"),
        (b"9" * 9**5, "JSON"),
    ],
)
def test_what_is_no_request(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "in"
    path.write_bytes(content)
    with pytest.raises(BatchError, match=word):
        RequestFile(path, "flex")
    # Beside one that is, it is named, and that one is asked.
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(CHAT).encode() + b"\r\n" + content)
    file = RequestFile(path, "flex")
    assert (file.ids, file.nameless) == ({"a"}, 1)
    assert len(file.complaints) == 1 and "line" in file.complaints[0]


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_what_cannot_be_read(tmp_path: Path, path: str) -> None:
    with pytest.raises(BatchError, match=path):
        RequestFile(tmp_path / path, "flex")


def test_an_id_that_is_there_twice(tmp_path: Path) -> None:
    path = written(tmp_path / "in", CHAT, *[CHAT | {"body": {"n": 2}}] * 20)
    file = RequestFile(path, "flex")
    assert file.nameless == 20 and len(file.complaints) == MAX_COMPLAINTS
    assert "line 2 has custom_id 'a', which is there before" in file.complaints[0]
    assert [json.loads(r.data)["n"] for r in file.without(set())] == [1]


def test_a_pipe_is_read_twice(tmp_path: Path) -> None:
    text = b"".join(json.dumps(CHAT | {"custom_id": str(n)}).encode() + b"\n" for n in range(300))
    read, write = os.pipe()
    assert os.write(write, text) == len(text)
    os.close(write)
    assert [r.custom_id for r in requests(Path(f"/proc/self/fd/{read}"))] == list(
        map(str, range(300))
    )
    os.close(read)


def _three(path: Path) -> bytes:
    file = AnswerFile(path, IDS)
    for name in "abc":
        file.add(name, answer())
    file.close()
    return path.read_bytes()


@given(cut=st.integers(0, 800))
def test_a_crash_anywhere_costs_one_line_at_most(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "out"
    whole = _three(path)
    left = whole[: min(cut, len(whole))]
    path.write_bytes(left)
    if 0 < cut < len(b'{"id": "batch_req_0", "custom_id": "a"'):
        # Anybody may have written so little.
        with pytest.raises(BatchError, match="has no end"):
            AnswerFile(path, IDS)
        assert path.read_bytes() == left
        return
    again = AnswerFile(path, IDS)
    # Of a line that lacks its end alone nothing is lost.
    held = left.count(b"\n") + (left + b"\n" in (whole, *_heads(whole)))
    assert again.answered == set("abc"[:held])
    for name in "abc"[held:]:
        again.add(name, answer())
    again.close()
    assert path.read_bytes() == whole


def _heads(text: bytes) -> list[bytes]:
    lines = text.splitlines(keepends=True)
    return [b"".join(lines[:n]) for n in range(1, len(lines))]


def test_errors_are_counted_again(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "out", IDS)
    file.add("a", answer(400))
    file.add("b", failed("code", "message"))
    file.add("c", answer())
    with pytest.raises(BatchError, match="another program"):
        AnswerFile(tmp_path / "out", IDS)
    file.close()
    again = AnswerFile(tmp_path / "out", IDS)
    assert (again.answered, again.errors) == (set("abc"), set("ab"))
    again.close()


OTHERS = ["[]", "{}", "3", "{", '{"custom_id": "a", "response": null}', "\0", '{"id": "batch_req_']


@pytest.mark.parametrize("line", OTHERS)
@pytest.mark.parametrize("rest", ["\nmore", "\n", ""])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, line: str, rest: str) -> None:
    path = tmp_path / "out"
    path.write_text(f"{line}{rest}")
    with pytest.raises(BatchError, match="line 1 is not an answer"):
        AnswerFile(path, IDS)
    assert path.read_text() == f"{line}{rest}"


def test_the_rest_of_another_batch_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out"
    torn = _three(path)[:60]
    path.write_bytes(torn)
    with pytest.raises(BatchError, match="has no end"):
        AnswerFile(path, {"other"})
    assert path.read_bytes() == torn


@pytest.mark.parametrize("kind", ["same", "symbolic", "hard", "relative"])
def test_the_input_is_no_output(tmp_path: Path, kind: str) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_text(json.dumps(CHAT))
    if kind == "symbolic":
        out.symlink_to(source)
    elif kind == "hard":
        out.hardlink_to(source)
    else:
        out = tmp_path / ".." / tmp_path.name / "in" if kind == "relative" else source
    file = RequestFile(source, "flex")
    with pytest.raises(BatchError, match="is the input, too"):
        AnswerFile(out, file.ids, file.status)
    assert source.read_text() == json.dumps(CHAT)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(BatchError, match="is not a file"):
            AnswerFile(path, IDS)
    with pytest.raises(BatchError, match="directory"):
        AnswerFile(tmp_path, IDS)


def test_a_file_that_goes_away_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "out"
    file = AnswerFile(path, IDS)
    file.add("a", answer())
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(BatchError, match="No such file"):
        file.add("b", answer())
    path.write_text("theirs")
    with pytest.raises(BatchError, match="replaced"):
        file.add("b", answer())
    file.close()
    assert path.read_text() == "theirs"
    assert AnswerFile(tmp_path / "elsewhere", IDS).answered == {"a"}


def test_what_does_not_fit_leaves_no_half_line(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "out", IDS)
    file.add("a", answer())
    before = (tmp_path / "out").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(BatchError, match="run it again"):
            file.add("b", answer())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "out").read_bytes() == before
    file.add("c", answer())
    file.close()
    assert AnswerFile(tmp_path / "out", IDS).answered == {"a", "c"}
