# SPDX-License-Identifier: Apache-2.0
"""A full disk may cost the metrics, never the service; full shared memory is refused in words.

Each test runs a program in a mount namespace of its own, on a file system of a page or two.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

UNSHARE = (
    ("unshare", "--mount"),  # by root
    ("unshare", "--user", "--map-root-user", "--mount"),
)
MOUNT = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def namespace() -> tuple[str, ...]:
    """How to get a mount namespace here."""
    for unshare in UNSHARE:
        command = [*unshare, "sh", "-c", MOUNT, "sh", "size=4k", "/mnt", "true"]
        if not subprocess.run(command, capture_output=True).returncode:
            return unshare
    pytest.skip("no mounting here, not even in a namespace: no file system can be made full")


@pytest.fixture
def run(namespace: tuple[str, ...], tmp_path: Path) -> Run:
    """Runs a program with a file system of these options at this place, which is its argument."""

    def run(program: str, options: str, place: str | None = None) -> subprocess.CompletedProcess:
        place = place or str(tmp_path)
        command = [*namespace, "sh", "-c", MOUNT, "sh", options, place]
        command += [sys.executable, "-c", program, place]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


FULL = """
import sys
with open(sys.argv[1] + "/rest", "wb") as rest:
    rest.write(b"x" * 4096)
"""

METRICS = """
import logging, os, sys, tempfile
logging.basicConfig(level=logging.WARNING, format="%(message)s")
tempfile.tempdir = sys.argv[1]
from vllm_qllm.config import PriorityConfig
from vllm_qllm.metrics import location
from vllm_qllm.metrics.collector import PriorityCollector
from vllm_qllm.metrics.recorder import Recorder

config = PriorityConfig()
prefix = location.prepare(config)
recorder = Recorder(config, location.store_path())
for level in (0, 1):
    recorder.response(level, 0.1)
    recorder.generated_tokens(level, 3)
if prefix:
    families = PriorityCollector(["latency_sensitive", "best_effort"], prefix).collect()
    print("samples", sum(len(family.samples) for family in families))
    print("files", os.listdir(os.path.dirname(prefix)))
print("prepared", location.prepared() is not None)
recorder.close()
"""


@pytest.mark.covers("Full disk", "eager")
def test_no_room_for_the_numbers(run: Run) -> None:
    done = run(FULL + METRICS, "size=4k")
    assert done.returncode == 0, done
    assert done.stderr.count("left out of /metrics") == 1
    assert "No space left on device" in done.stderr
    # One says that no engine records.
    assert "samples 1\nfiles []" in done.stdout, "a cut file is left, or half of the numbers"


@pytest.mark.covers("Full disk", "eager")
def test_no_room_for_a_directory(run: Run) -> None:
    done = run(METRICS, "nr_inodes=1")
    assert done.returncode == 0, done
    assert done.stderr.count("left out of /metrics") == 1
    assert "No space left on device" in done.stderr
    assert done.stdout == "prepared False\n", "an empty collector would say that all is well"


def test_just_enough_room(run: Run) -> None:
    done = run(METRICS, "size=64k")
    assert (done.returncode, done.stderr) == (0, "")
    assert "samples 0" not in done.stdout and "metrics.0" in done.stdout


TIMELINE = """
import logging, os, sys, tempfile
logging.basicConfig(level=logging.WARNING, format="%(message)s")
tempfile.tempdir = sys.argv[1]
from vllm_qllm.config import PriorityConfig
from vllm_qllm.metrics import location
from vllm_qllm.timeline.document import document
from vllm_qllm.timeline.location import ring_path
from vllm_qllm.timeline.log import open_log

config = PriorityConfig(timeline=1024)
prefix = location.prepare(config)
log = open_log(config, ring_path())
if log:
    log.queue(0, 1, 2, 3, 4.0)
print(log is None, os.listdir(os.path.dirname(prefix)))
print([len(engine["events"]) for engine in document(prefix, 1e6)["engines"]])
"""


@pytest.mark.covers("Full disk", "eager")
def test_no_room_for_the_timeline(run: Run) -> None:
    done = run(TIMELINE, "size=64k")
    assert done.returncode == 0, done
    assert done.stderr.count("The timeline is left out") == 1
    assert "No space left on device" in done.stderr
    assert done.stdout == "True []\n[]\n", "a cut file is left"
    assert run(TIMELINE, "size=256k").stdout == "False ['timeline.0']\n[1]\n"


FILLED_LATER = """
import os, sys
from vllm_qllm.metrics.layout import Layout
from vllm_qllm.metrics.store import Store, read

layout = Layout(["a", "b"])
path = sys.argv[1] + "/metrics.0"
store = Store(layout, path)
with open(sys.argv[1] + "/rest", "wb", buffering=0) as rest:
    try:
        while rest.write(b"x" * 4096):
            pass
    except OSError as error:
        print(error.strerror)
for slot in range(layout.size):
    store.slots[slot] = 1.0
print(sum(read(layout, path)) == layout.size)
"""


def test_a_disk_that_fills_up_later_takes_nothing_away(run: Run) -> None:
    done = run(FILLED_LATER, "size=64k")
    assert (done.returncode, done.stdout) == (0, "No space left on device\nTrue\n"), done


FLAG = """
import os
from vllm_qllm.execution.flag import SIZE, Flag

try:
    Flag()
except OSError as error:
    print(error.strerror)
os.remove("/dev/shm/rest")
print(os.listdir("/dev/shm"))
flag = Flag()
flag.raise_for(7)
print(SIZE <= 4096, Flag(flag.name).names(7))
flag.close()
"""


@pytest.mark.covers("Full disk", "eager")
def test_no_room_for_the_arrival_flag(run: Run) -> None:
    done = run(FULL + FLAG, "size=4k", "/dev/shm")
    assert done.returncode == 0, f"{done}: SIGBUS is -7 or 135"
    assert done.stdout.startswith("no room in /dev/shm for the "), done.stdout
    assert done.stdout.endswith("bytes of the arrival flag\n[]\nTrue True\n"), done.stdout
