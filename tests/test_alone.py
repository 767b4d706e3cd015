# SPDX-License-Identifier: Apache-2.0
"""Who runs alone does: workers that share the tests wait for each other as they should."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.alone import Turns


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("coming", [False, True])
def test_nobody_is_beside_who_is_alone(tmp_path: Path, inside: bool, coming: bool) -> None:
    came = threading.Event()

    def come() -> None:
        # As of another process: locks belong to who has opened the file.
        with Turns(tmp_path).turn(alone=coming):
            came.set()

    thread = threading.Thread(target=come)
    with Turns(tmp_path).turn(alone=inside):
        thread.start()
        if inside or coming:
            assert not came.wait(0.2)
        else:
            assert came.wait(30)
    assert came.wait(30)
    thread.join()


def test_who_waits_to_be_alone_is_not_overtaken_for_ever(tmp_path: Path) -> None:
    entered, over, was_alone = 0, threading.Event(), threading.Event()
    changing = threading.Condition()

    def relay() -> None:
        """Leaves when the other one has come in, so that somebody always is inside."""
        nonlocal entered
        turns = Turns(tmp_path)
        while not over.is_set():
            with turns.turn(alone=False), changing:
                entered += 1
                changing.notify_all()
                changing.wait(0.3)

    def alone() -> None:
        with Turns(tmp_path).turn(alone=True):
            was_alone.set()

    threads = [threading.Thread(target=relay) for _ in range(2)]
    for thread in threads:
        thread.start()
    with changing:
        assert changing.wait_for(lambda: entered > 3, timeout=30)
    threads.append(threading.Thread(target=alone))
    threads[-1].start()
    came = was_alone.wait(20)
    over.set()
    for thread in threads:
        thread.join(30)
    assert came
