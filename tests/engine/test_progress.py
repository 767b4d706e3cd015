# SPDX-License-Identifier: Apache-2.0
"""A request is followed from the moment at which the engine saw it to its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from vllm_qllm.engine.progress import ProgressTable


def request(name: str, **more: Any) -> Any:
    return SimpleNamespace(request_id=name, **more)


def test_the_moment_is_that_of_the_io_thread() -> None:
    table = ProgressTable()
    progress = table.arrived(request("a", priority_arrived=5.0), 1)
    assert progress is not None and (progress.level, progress.arrived) == (1, 5.0)
    assert table.arrived(request("a", priority_arrived=9.0), 1) is None, "more of a streamed one"
    assert table.of("a") is progress
    assert table.ended("a") is progress
    assert table.ended("a") is None and table.of("a") is None


def test_times_between_tokens() -> None:
    progress = ProgressTable().arrived(request("a", priority_arrived=0.0), 0)
    assert progress is not None and progress.seconds_per_token is None
    progress.advance(1, 2.0)
    assert progress.seconds_per_token is None
    progress.advance(2, 3.0)
    progress.advance(5, 4.0)
    assert (progress.first_token, progress.last_token, progress.tokens) == (2.0, 4.0, 5)
    assert progress.seconds_per_token == 0.5
