# SPDX-License-Identifier: Apache-2.0
"""What was seen once is read ever after; what is new, or another's, is noticed."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from vllm_qllm import seams
from vllm_qllm.config import PriorityConfig
from vllm_qllm.metrics import location
from vllm_qllm.metrics.collector import PriorityCollector
from vllm_qllm.metrics.kept import KeptFiles, kept
from vllm_qllm.metrics.pulse import Pulse, PulseReader
from vllm_qllm.metrics.recorder import Recorder

CONFIG = PriorityConfig()
NAMES = [c.name for c in CONFIG.classes]


def scrape(collector: PriorityCollector) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_every_metric_outlives_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "place"
    directory.mkdir()
    recorders = [Recorder(CONFIG, directory / f"metrics.{n}") for n in range(2)]
    collector = PriorityCollector(NAMES, str(directory / "metrics"))
    before = scrape(collector)
    assert before["qllm_recording_engines[]"] == 2
    shutil.rmtree(directory)
    for recorder in recorders:
        recorder.waiting(1, 3)
    after = scrape(collector)
    assert after.keys() == before.keys() and not caplog.records
    assert after["qllm_requests_waiting['best_effort']"] == 6


def test_without_an_engine_that_records_it_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collector = PriorityCollector(NAMES, str(tmp_path / "metrics"))
    with caplog.at_level(logging.ERROR, logger="vllm.qllm"):
        assert scrape(collector) == scrape(collector) == {"qllm_recording_engines[]": 0}
    assert caplog.text.count("no engine records any here") == 1


def test_new_files_and_replaced_ones_are_read(tmp_path: Path) -> None:
    files = KeptFiles(tmp_path)
    assert files.named("a") == {}
    (tmp_path / "a.0").write_text("old")
    (tmp_path / "b.7").write_text("b")
    (tmp_path / "a.0.12.new").write_text("draft")
    assert {n: p.read_text() for n, p in files.named("a").items()} == {0: "old"}
    (tmp_path / "new").write_text("new")
    (tmp_path / "new").rename(tmp_path / "a.0")
    (tmp_path / "a.10").write_text("ten")
    for _ in range(2):
        assert {n: p.read_text() for n, p in files.named("a").items()} == {0: "new", 10: "ten"}
        shutil.rmtree(tmp_path, ignore_errors=True)
    assert {n: p.read_text() for n, p in files.named("b").items()} == {7: "b"}


def test_what_is_no_file_of_ours_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("other")
    (tmp_path / "a.0").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "a.1")
    (tmp_path / "a.2").write_text("another user's")
    if os.geteuid() == 0:
        os.chown(tmp_path / "a.2", 12345, 12345)
        assert KeptFiles(tmp_path).named("a") == {}


def test_the_pulse_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.0.pulse"
    pulse = Pulse(path)
    reader = PulseReader(path)
    path.unlink()
    pulse.beat(7.0, busy=True)
    assert reader.read() == (7.0, True)


def test_who_lets_go_of_it_closes_it(tmp_path: Path) -> None:
    (tmp_path / "a.0").write_text("a")
    files = kept(tmp_path)
    assert kept(tmp_path) is files
    path = files.named("a")[0]
    assert path.exists()
    del files
    assert not path.exists() or os.readlink(path) != str(tmp_path / "a.0")


def test_the_directory_of_several_servers_may_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seam in seams.HTTP:
        seam.install()
    directory = tmp_path / "several"
    directory.mkdir()
    (directory / "counter_1.db").write_bytes(bytes(1024))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(directory))
    monkeypatch.setenv(location.VARIABLE, "")
    monkeypatch.setattr(location, "_prepared", None)
    prefix = location.prepare(CONFIG)
    recorder = Recorder(CONFIG, f"{prefix}.0")

    def scraped() -> str:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return generate_latest(registry).decode()

    assert 'qllm_requests_waiting{class="best_effort"} 0.0' in scraped()
    shutil.rmtree(directory)
    shutil.rmtree(os.path.dirname(prefix))
    recorder.waiting(1, 4)
    with caplog.at_level(logging.ERROR, logger="vllm.qllm"):
        for _ in range(2):
            assert 'qllm_requests_waiting{class="best_effort"} 4.0' in scraped()
    assert caplog.text.count("was cleaned under this server") == 1
