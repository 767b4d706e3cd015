# SPDX-License-Identifier: Apache-2.0
"""Requests to one engine in this process, urgent ones by themselves and beside batch work."""

import asyncio
import random
import time
from typing import Any

from vllm_qllm.percentile import percentile

LS_TOKENS, BE_TOKENS = (128, 16), (8000, 32)
LS_RATE, BE_CLIENTS = 4.0, 4


class Load:
    """Requests to one engine, and when their tokens came."""

    def __init__(self, engine: Any, seconds: float, seed: int) -> None:
        self._engine = engine
        # Each class draws for itself: systems that answer at other times get the same arrivals.
        self._arrivals = random.Random(f"{seed}-arrivals")
        self._prompts = random.Random(f"{seed}-prompts")
        self._end = time.perf_counter() + seconds
        self._start = time.perf_counter()
        self._ls: list[list[float]] = []  # due, then the times of tokens
        self._be_tokens = 0
        self._number = 0

    async def run(self, *, ls: bool, be: bool) -> dict[str, Any]:
        """Load the engine until the time is over; returns what was measured."""
        tasks = [asyncio.create_task(self._batch()) for _ in range(BE_CLIENTS if be else 0)]
        if be:
            await asyncio.sleep(1.0)  # until BE fills the engine
        started = time.perf_counter()
        urgent = []
        while ls and time.perf_counter() < self._end:
            await asyncio.sleep(self._arrivals.expovariate(LS_RATE))
            urgent.append(asyncio.create_task(self._urgent()))
        await asyncio.gather(*urgent)
        await asyncio.sleep(max(0.0, self._end - time.perf_counter()))
        seconds = time.perf_counter() - started
        batch = self._be_tokens
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        first = [times[1] - times[0] for times in self._ls]
        each = [(t[-1] - t[1]) / (len(t) - 2) for t in self._ls]
        return {
            "seconds": seconds,
            "ls": len(first),
            "ttft_ms": spread(first),
            "tpot_ms": spread(each),
            "be_tokens_per_second": batch / (time.perf_counter() - self._start),
        }

    async def _urgent(self) -> None:
        due = time.perf_counter()
        self._ls.append([due, *[time.perf_counter() async for _ in self._ask(LS_TOKENS, 0)]])

    async def _batch(self) -> None:
        while True:
            first = True
            async for _ in self._ask(BE_TOKENS, 10):
                self._be_tokens += 1 + (BE_TOKENS[0] if first else 0)
                first = False

    def _ask(self, tokens: tuple[int, int], priority: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._number += 1
        prompt = [self._prompts.randrange(10, 250) for _ in range(tokens[0])]
        params = SamplingParams(
            max_tokens=tokens[1],
            ignore_eos=True,
            temperature=0.0,
            output_kind=RequestOutputKind.DELTA,
        )
        name = f"{priority}-{self._number}-{self._prompts.random()}"
        return self._engine.generate({"prompt_token_ids": prompt}, params, name, priority=priority)


def spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    at = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    return {name: 1e3 * (percentile(values, p) or 0.0) for name, p in at.items()}
