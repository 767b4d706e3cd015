# SPDX-License-Identifier: Apache-2.0
"""Many mixed requests with random aborts leave nothing behind, and SIGTERM drains the rest.

``SOAK_REQUESTS`` says how many; ``make soak`` sends 10,000.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.serve.mixed_load import BE, LS, MixedLoad, pool
from tests.serve.resources import Usage, processes, shared_memory, usage
from tests.serve.server import STRICT, Server, serve
from tests.serve.standstill import standstill

pytestmark = [pytest.mark.server, pytest.mark.slow]

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "400"))
CLIENTS = 24
QUARTERS = 4
DRAIN_SECONDS = 60
# So few KV blocks that all are used soon, and that requests lose theirs to others.
BLOCKS = "96"
SUSPENSIONS = f'qllm_suspensions_total{{by="{LS}",of="{BE}"}}'


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """A directory with a short name: vLLM's sockets in it must not exceed 107 characters."""
    with tempfile.TemporaryDirectory(prefix="q") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def soaked(
    tiny_model: Path, temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server of this file; the last test ends it."""
    arguments = ("--num-gpu-blocks-override", BLOCKS, "--shutdown-timeout", str(DRAIN_SECONDS))
    log = tmp_path_factory.mktemp("soak") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        # oneDNN keeps its kernels for the last 1024 shapes it met, hundreds of MiB that take
        # thousands of requests to fill: with few kept, memory that grows is a leak.
        patch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
        with serve(tiny_model, log, *STRICT, *arguments) as server:
            yield server


def outcomes(server: Server) -> dict[tuple[str, str], float]:
    """Requests that ended, by class and outcome."""
    samples = server.samples("qllm_requests_total")
    names = ("stop", "length", "abort", "error", "repetition")
    return {
        (cls, name): samples[f'qllm_requests_total{{class="{cls}",outcome="{name}"}}']
        for cls in (LS, BE)
        for name in names
    }


def wait_until_idle(server: Server) -> None:
    """Until no request runs, waits or is suspended."""
    deadline = time.monotonic() + 30
    while open_requests := {
        name: number
        for name, number in server.samples("qllm_requests_").items()
        if number and "_total" not in name
    }:
        assert time.monotonic() < deadline, f"stuck: {open_requests}"
        time.sleep(0.1)


def rest(server: Server) -> dict[str, Usage]:
    """What its processes hold once the connections of clients are gone."""
    wait_until_idle(server)
    time.sleep(1)
    return {title: usage(pid) for title, pid in processes(server).items()}


# Allocators keep some of what is freed; that is over by half-time. A leak of a request, whose
# prompt alone is thousands of bytes, would then go on.
SLACK_MIB, BYTES_A_REQUEST = 16.0, 2048
ALLOWED_MIB = SLACK_MIB + BYTES_A_REQUEST * REQUESTS / 2 / 2**20


@pytest.mark.timeout(900)
@pytest.mark.covers("Aborts", "eager", suspended=True)
def test_nothing_is_lost_and_nothing_is_kept(soaked: Server) -> None:
    load = MixedLoad(soaked.url, pool(seed=1, count=150), seed=2, clients=CLIENTS)
    began = time.monotonic()
    held: list[dict[str, Usage]] = []
    for _ in range(QUARTERS):
        asyncio.run(load.run(REQUESTS // QUARTERS))
        held.append(rest(soaked))
    tally, took = load.tally, time.monotonic() - began
    assert not tally.wrong, f"{len(tally.wrong)}: {tally.wrong[:3]}"
    assert tally.refused and sum(tally.left.values())

    counted = outcomes(soaked)
    for cls in (LS, BE):
        known = sum(n for (of, _), n in tally.ended.items() if of == cls) + tally.either[cls]
        total = sum(n for (of, _), n in counted.items() if of == cls)
        # Those who left before anything came may have left before the engine heard of them.
        assert known + tally.admitted[cls] <= total <= known + tally.left[cls] == tally.sent[cls]
        for name in ("stop", "length"):
            least = tally.ended[cls, name]
            most = least + tally.either[cls] + tally.left[cls]
            assert least <= counted[cls, name] <= most, (cls, name)
        assert counted[cls, "error"] == counted[cls, "repetition"] == 0
        assert counted[cls, "abort"] <= tally.left[cls] + tally.either[cls]
    samples = soaked.samples()
    assert samples[SUSPENSIONS] > REQUESTS / 50

    # The number of used blocks is told with a step.
    with openai.OpenAI(base_url=f"{soaked.url}/v1", api_key="none", max_retries=0) as client:
        client.completions.create(model="tiny", prompt="still there?", max_tokens=1)
    blocks = soaked.samples("vllm:kv_cache_usage_perc")
    assert list(blocks.values()) == [0.0]

    print(
        f"\n{REQUESTS} requests in {took:.0f} s; suspensions: {samples[SUSPENSIONS]:.0f}; {tally}"
    )
    for title, last in held[-1].items():
        first, middle = held[0][title], held[1][title]
        print(f"{title}: {[quarter[title] for quarter in held]}")
        assert last.files <= first.files, title
        assert last.threads <= first.threads, title
        assert last.shared == first.shared, title
        assert last.private - middle.private < ALLOWED_MIB, title


@pytest.mark.covers("SIGTERM drains", "eager", suspended=True)
def test_sigterm_drains(soaked: Server, temporary: Path) -> None:
    mapped = {path for path in shared_memory(soaked) if path.name.startswith("psm_")}
    assert mapped and list(temporary.glob("vllm-qllm-*"))

    async def load() -> None:
        client = openai.AsyncOpenAI(
            base_url=f"{soaked.url}/v1", api_key="none", max_retries=0, timeout=DRAIN_SECONDS
        )
        best_effort, urgent = await standstill(soaked, client)
        soaked.process.send_signal(signal.SIGTERM)
        endings = await asyncio.gather(*best_effort, *urgent)
        assert len(endings) >= 2
        assert {ending.how for ending in endings} == {"length"}
        await client.close()

    asyncio.run(load())
    assert soaked.has_ended(within_seconds=30), soaked.tail()
    assert soaked.process.returncode == 0
    assert not [path for path in mapped if path.exists()]
    assert not list(temporary.glob("vllm-qllm-*"))
