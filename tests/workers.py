# SPDX-License-Identifier: Apache-2.0
"""How ``pytest -n`` shares the tests out: a chain of them at a time, the long ones first.

A chain is a file, unless its tests share a server with those of other files, or nothing at all
with each other. Without ``-n`` nothing here matters, and pytest-xdist is not needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.alone import Turns

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

# By what they share: a file that is missing here only starts another.
SHARED = {
    "the fleet": ("deploy/test_dashboard.py", "deploy/test_failures.py"),
    "the server": (
        "serve/test_batch.py",
        "serve/test_benchmark.py",
        "serve/test_capacity.py",
        "serve/test_fuzz.py",
        "serve/test_http.py",
        "serve/test_preemption.py",
        "serve/test_request_features.py",
        "serve/test_service_tier.py",
        "serve/test_status.py",
        "serve/test_status_page.py",
        "serve/test_timeline.py",
        "serve/test_vanishing_clients.py",
        "serve/test_without_policy.py",
    ),
}
CHAINS = {f"tests/{file}": chain for chain, files in SHARED.items() for file in files}
# Each test starts an engine of its own, for many seconds.
SEPARATE = {"tests/engine/test_families.py"}


def chain_of(nodeid: str) -> str:
    """The chain of a test, which one worker runs in order."""
    file = nodeid.partition("::")[0]
    return nodeid if file in SEPARATE else CHAINS.get(file, file)


class Shares:
    """Of the process that shares the tests out."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadScopeScheduling:
        """Gives a worker that has done its chain the next one."""
        from xdist.scheduler import LoadScopeScheduling

        class Scheduling(LoadScopeScheduling):
            def _split_scope(self, nodeid: str) -> str:
                return chain_of(nodeid)

        config.option.loadscopereorder = False  # by the number of tests, which says little
        return Scheduling(config, log)


class Worker(Turns):
    """Of a process that runs a share of the tests."""

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(Path(config.option.basetemp).parent)  # which all workers have
        given: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]
        number, count = int(given["workerid"].removeprefix("gw")), given["workercount"]
        cores = sorted(os.sched_getaffinity(0))
        own = cores[number % count :: count] or [cores[number % len(cores)]]
        # By itself every server would take the same cores.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, own)))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """First chains that start servers, then those that start engines, then the quick ones."""
        ranks: dict[str, int] = {}
        for item in items:
            uses: tuple[str, ...] = getattr(item, "fixturenames", ())
            rank = 0 if item.get_closest_marker("server") else 1 if "engine_for" in uses else 2
            chain = chain_of(item.nodeid)
            ranks[chain] = min(rank, ranks.get(chain, rank))
        items.sort(key=lambda item: ranks[chain_of(item.nodeid)])
