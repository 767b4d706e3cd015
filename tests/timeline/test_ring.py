# SPDX-License-Identifier: Apache-2.0
"""A ring keeps the last events, and a reader never sees half of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vllm_qllm.timeline import events
from vllm_qllm.timeline.ring import LABEL, NoRing, Ring, read, records

CAPACITY = 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "timeline.0"


def test_events_come_back_as_they_were(path: Path) -> None:
    ring = Ring(path, CAPACITY, {"classes": ["a", "b"]})
    ring.append(5, events.REQUEST_ARRIVED, 1, 7, (100, 64), "chatcmpl-ä".encode())
    ring.append(2**62, events.STEP_SUSPENDED, 1, 2**40, (0, 3, -1, 2, 0))
    found = read(path)
    assert found.description == {"classes": ["a", "b"]}
    assert found.written == 2
    first, second = records(found.rows)
    assert first == (1, 5, events.REQUEST_ARRIVED, 1, 7, (100, 64), "chatcmpl-ä")
    assert second == (2, 2**62, events.STEP_SUSPENDED, 1, 2**40, (0, 3, -1, 2, 0), "")


@pytest.mark.parametrize("count", [1, CAPACITY - 1, CAPACITY, CAPACITY + 1, 5 * CAPACITY + 3])
def test_the_oldest_are_overwritten(path: Path, count: int) -> None:
    ring = Ring(path, CAPACITY, {})
    for time in range(1, count + 1):
        ring.append(time, events.QUEUE, 0, 0, (time, 0, 0))
    found = read(path)
    assert found.written == count
    # The slot that the next event goes to may be in the middle of being written.
    left = min(count, CAPACITY - 1)
    assert [r.number for r in records(found.rows)] == list(range(count - left + 1, count + 1))
    assert all(r.number == r.time == r.values[0] for r in records(found.rows))


@pytest.mark.parametrize("count", [0, 1, CAPACITY - 1, CAPACITY, CAPACITY + 1, 5 * CAPACITY + 3])
@pytest.mark.parametrize("after", [0, 1, CAPACITY - 2, CAPACITY, 5 * CAPACITY, 5 * CAPACITY + 9])
def test_only_what_is_new(path: Path, count: int, after: int) -> None:
    ring = Ring(path, CAPACITY, {})
    for time in range(1, count + 1):
        ring.append(time, events.QUEUE, 0, 0, (time, 0, 0))
    expected = [r for r in records(read(path).rows) if r.number > after]
    assert records(read(path, after).rows) == expected
    assert read(path, after).written == count


def test_a_long_name_is_cut(path: Path) -> None:
    ring = Ring(path, CAPACITY, {})
    ring.append(1, events.REQUEST_ARRIVED, 0, 1, (1, 1), b"x" * 500)
    ring.append(1, events.REQUEST_ARRIVED, 0, 1, (1, 1), ("x" + "ä" * 100).encode())
    long, cut_in_a_letter = records(read(path).rows)
    assert long.label == "x" * LABEL
    assert cut_in_a_letter.label == "x" + "ä" * ((LABEL - 1) // 2)


WRITER = """
import sys
from vllm_qllm.timeline import events
from vllm_qllm.timeline.ring import Ring
ring = Ring(sys.argv[1], int(sys.argv[2]), {})
print("ready", flush=True)
number = 0
while True:
    number += 1
    ring.append(number, events.STEP_SUSPENDED, 0, number, (number,) * 5, str(number).encode())
"""


def test_what_is_written_meanwhile_is_left_out(path: Path) -> None:
    """A writer that laps the reader many times a second: every event that is read is whole."""
    command = [sys.executable, "-c", WRITER, str(path), str(CAPACITY * 64)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            seen = set()
            for _ in range(300):
                rows = records(read(path).rows)
                numbers = [r.number for r in rows]
                assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True
                for r in rows:
                    assert r.values == (r.number,) * 5, r
                    assert (r.time, r.subject, r.label) == (r.number, r.number, str(r.number)), r
                seen.update(numbers)
        finally:
            writer.kill()
    assert len(seen) > CAPACITY * 64, "the writer did not lap the reader"


@pytest.mark.parametrize("content", [b"", b"qllmtl", b"\0" * 10_000])
def test_a_file_that_is_no_ring_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(NoRing, match="is "):
        read(path)


def test_a_cut_ring_is_refused(path: Path) -> None:
    Ring(path, CAPACITY, {}).close()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(NoRing):
        read(path)


def test_no_draft_is_left_beside_the_file(path: Path) -> None:
    Ring(path, CAPACITY, {}).close()
    assert list(path.parent.iterdir()) == [path]


def test_every_kind_fits() -> None:
    assert len(events.CODES) == len(events.KINDS) < 256
    for kind in events.KINDS:
        assert len(kind.values) <= events.MAX_VALUES
        assert kind.about in ("step", "request", "")
