# SPDX-License-Identifier: Apache-2.0
"""The numbers arrive as they were written, and never under another name."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_qllm.metrics.layout import Layout
from vllm_qllm.metrics.names import METRICS
from vllm_qllm.metrics.store import LayoutMismatch, Store, read

CLASSES = ("urgent", "batch")


def test_every_series_has_slots_of_its_own() -> None:
    layout = Layout(CLASSES)
    taken: set[int] = set()
    for metric in METRICS:
        for values in layout.series(metric):
            start = layout.offset(metric.name, *values)
            slots = set(range(start, start + layout.width(metric)))
            assert not slots & taken, (metric.name, values)
            taken |= slots
    assert taken == set(range(layout.size))


def test_another_process_reads_what_was_written(tmp_path: Path) -> None:
    layout, path = Layout(CLASSES), tmp_path / "metrics.0"
    store = Store(layout, path)
    store.slots[3] = 2.5
    store.slots[layout.size - 1] = 7.0
    reader = (
        "import sys; from vllm_qllm.metrics.layout import Layout; "
        "from vllm_qllm.metrics.store import read; "
        "slots = read(Layout(sys.argv[2:]), sys.argv[1]); print(slots[3], slots[-1], sum(slots))"
    )
    command = [sys.executable, "-c", reader, str(path), *CLASSES]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["2.5", "7.0", "9.5"]
    store.slots[3] += 1
    assert read(layout, path)[3] == 3.5  # type: ignore[index]
    store.close()
    assert read(layout, path)[3] == 3.5  # type: ignore[index]


def test_no_file_is_no_numbers(tmp_path: Path) -> None:
    assert read(Layout(CLASSES), tmp_path / "metrics.0") is None


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Layout(CLASSES))
    store.slots[0] = 1.0
    store.close()
    assert not list(tmp_path.iterdir())


def test_no_draft_is_left_beside_the_file(tmp_path: Path) -> None:
    Store(Layout(CLASSES), tmp_path / "metrics.0").close()
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.0"]


OTHERS = {
    "classes": Layout(("urgent", "rest")),
    "order of classes": Layout(CLASSES[::-1]),
    "metrics": Layout(CLASSES, METRICS[:-1]),
    "buckets": Layout(CLASSES, (*METRICS[:-1], dataclasses.replace(METRICS[-1], buckets=(1.0,)))),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_reader_of_another_layout_refuses(tmp_path: Path, other: Layout) -> None:
    path = tmp_path / "metrics.0"
    Store(Layout(CLASSES), path).close()
    with pytest.raises(LayoutMismatch, match="not those of classes"):
        read(other, path)


@pytest.mark.parametrize("content", [b"", b"qllm", b"\0" * 10_000])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.0"
    path.write_bytes(content)
    with pytest.raises(LayoutMismatch):
        read(Layout(CLASSES), path)


def test_a_cut_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.0"
    Store(Layout(CLASSES), path).close()
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(LayoutMismatch):
        read(Layout(CLASSES), path)
