# SPDX-License-Identifier: Apache-2.0
"""Whatever the fields that we read hold, a request is answered or refused, and nothing is told."""

from __future__ import annotations

import json
import string
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serve.server import MODEL, Server
from vllm_qllm.config import INT64_MAX, INT64_MIN, SERVICE_TIERS

pytestmark = pytest.mark.server

# Neither may be found in the log.
CANARY, SECRET = "zyxcanaryprompt", "zyxsecrettoken"
CHAT = [{"role": "user", "content": f"{CANARY} hello"}]
# Path and body of each kind of request whose priority we look up.
PATHS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": f"{CANARY} hello", "max_tokens": 1},
    "/v1/chat/completions": {"messages": CHAT, "max_tokens": 1},
    "/v1/chat/completions/batch": {"messages": [CHAT, CHAT], "max_tokens": 1},
    "/v1/responses": {"input": f"{CANARY} hello", "max_output_tokens": 1, "store": False},
}
numbers = (
    st.integers()
    | st.sampled_from([0, -1, INT64_MIN, INT64_MAX, INT64_MIN - 1, INT64_MAX + 1, 10**4000])
    | st.floats(allow_nan=True, allow_infinity=True)
)
texts = st.text(max_size=12) | st.sampled_from([*SERVICE_TIERS, "1", "-7", "x" * 5000, "\ud800"])
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
tiers = st.sampled_from(SERVICE_TIERS)
int64 = st.integers(INT64_MIN, INT64_MAX)
# Every byte that HTTP allows in the value of a field; spaces around it are not part of it.
bytes_of_headers = st.text(string.printable[:95], max_size=20).map(str.encode) | st.binary(
    max_size=20
).map(lambda value: bytes(b for b in value if b >= 32 and b != 127))
headers = (
    bytes_of_headers.map(bytes.strip)
    | int64.map(lambda n: str(n).encode())
    | st.sampled_from([b"", b"1_0", b"9" * 4000, b"+5", "٣".encode(), b"0x1", b"1e3", b"NaN"])
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "priority": int64 | anything,
        "service_tier": tiers | anything,
        "stream": st.booleans(),
        "use_beam_search": st.booleans(),
    },
)


class Fuzzed:
    """A client that looks at every answer and at every line of the log."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.client = httpx.Client(base_url=server.url, timeout=30)
        self.read = server.log.stat().st_size
        self.statuses: dict[str, set[int]] = {path: set() for path in PATHS}

    def send(self, path: str, content: bytes, header: bytes | None) -> None:
        """Send a body; every answer must be a complete success or a refusal in words."""
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {SECRET}"}
        given: list[tuple[bytes, bytes]] = [(k.encode(), v.encode()) for k, v in sent.items()]
        if header is not None:
            given.append((b"X-Vllm-Priority", header))
        answer = self.client.post(path, content=content, headers=given)
        status = answer.status_code
        self.statuses[path].add(status)
        assert status == 200 or 400 <= status < 500, f"{status}: {answer.text[:300]}"
        assert answer.text and SECRET not in answer.text
        if answer.headers["Content-Type"].startswith("text/event-stream"):
            assert '"error"' not in answer.text, "an error inside a stream that began as a success"
        self.check_log()

    def check_log(self) -> None:
        """What was printed since the last time holds no prompt, no secret and no traceback."""
        with self.server.log.open("rb") as log:
            log.seek(self.read)
            printed = log.read().decode(errors="replace")
        self.read += len(printed.encode())
        for word in (CANARY, SECRET, "Traceback"):
            assert word not in printed, printed


@pytest.fixture(scope="module")
def fuzzed(server: Server) -> Any:
    """One for all examples; afterwards the server must be as it was."""
    fuzzed = Fuzzed(server)
    yield fuzzed
    answer = fuzzed.client.post("/v1/completions", json={"model": MODEL, "prompt": "hello"})
    assert answer.status_code == 200
    gauges = {k: v for k, v in server.samples("qllm_requests_").items() if "_total" not in k}
    assert set(gauges.values()) == {0}
    fuzzed.client.close()


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(fields=bodies, header=st.none() | headers)
@pytest.mark.parametrize("path", PATHS)
def test_every_request_is_answered_or_refused(
    fuzzed: Fuzzed, path: str, fields: dict[str, Any], header: bytes | None
) -> None:
    content = json.dumps({"model": MODEL} | PATHS[path] | fields).encode()
    fuzzed.send(path, content, header)


# What Python's own JSON does not write, or does not read.
RAW = (b"9" * 5000, b"[" * 3000 + b"]" * 3000, b"", b"nope", b'"\\ud800"', b"1e999", b"-0", b"\xff")


@pytest.mark.parametrize("field", ["priority", "service_tier"])
@pytest.mark.parametrize("path", PATHS)
def test_what_is_hardly_json(fuzzed: Fuzzed, path: str, field: str) -> None:
    body = json.dumps({"model": MODEL} | PATHS[path]).encode().removesuffix(b"}")
    for value in RAW:
        fuzzed.send(path, body + b', "' + field.encode() + b'": ' + value + b"}", None)


def test_both_happened(fuzzed: Fuzzed) -> None:
    for path, statuses in fuzzed.statuses.items():
        assert {200, 400} <= statuses, path
        assert f"POST {path} " in fuzzed.server.log.read_text(errors="replace"), "no log of it"
    fuzzed.check_log()
