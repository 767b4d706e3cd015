# SPDX-License-Identifier: Apache-2.0
"""Measures what the steps of a running server cost, as a client sees it.

The server must be idle otherwise. Prompts are random token ids, so that no prefix is cached. Per
step: a lone prefill is the time to its first token; decodes of k requests are the gaps between
tokens while exactly those k are running; a prefill beside them is the longest gap it causes; and on
a server of this package's plugin, urgent requests over a best-effort prefill give the price of
suspending, nesting and resuming.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from vllm_qllm import credentials
from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.errors import CapacityError, check
from vllm_qllm.capacity.fit import Sample, fit, pairs

# Ids that every tokenizer has.
FIRST_ID, LAST_ID = 10, 250
# Tokens that each of several decodes generates while they are watched.
WATCHED = 32
# A decode that a nested request waits out: long enough for several of those.
URGENT_OUTPUT = 8
BEST_EFFORT_PRIORITY = 10
TIMEOUT_S = 900.0


@dataclass
class Answer:
    """When a request was sent and when each of its tokens came; ``time.monotonic()`` seconds."""

    prompt: int
    sent: float
    tokens: list[float] = field(default_factory=list)

    @property
    def wait(self) -> float:
        """Seconds to the first token."""
        return self.tokens[0] - self.sent


class Probe:
    """Measurements of one server.

    Args:
        url: of the server, with or without ``/v1``.
        model: as the server names it; None: its first one.
        repeats: of each measurement.
    """

    def __init__(self, url: str, model: str | None = None, repeats: int = 5) -> None:
        check(url.startswith(("http://", "https://")), "--url", url, "http://HOST:PORT")
        check(repeats >= 1, "--repeats", repeats, "an integer of at least 1")
        self.url = url.rstrip("/").removesuffix("/v1")
        self.model = model
        self.repeats = repeats
        self._draw = random.Random(0)

    def run(self, prompts: Sequence[int], rows: Sequence[int], layers: int) -> Cost:
        """Measure and fit.

        Args:
            prompts: prefill lengths in tokens, none above the server's token budget.
            rows: numbers of requests that decode together.
            layers: of the model, whose steps have a yield point each.

        Raises:
            CapacityError: the server does not answer, or refuses a request.
        """
        try:
            return asyncio.run(self._run(prompts, rows, layers))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise CapacityError(
                f"capacity: the server at {self.url} does not answer ({error!r}); allowed: the "
                "URL of a running vLLM server"
            ) from error

    async def _run(self, prompts: Sequence[int], rows: Sequence[int], layers: int) -> Cost:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        headers = credentials.headers()
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as self._session:
            if self.model is None:
                self.model = (await self._json("/v1/models"))["data"][0]["id"]
            known = await self._cache()
            await self._ask(prompts[0], WATCHED)  # the first request of a server warms it up
            lone = await self._prefills(prompts)
            decodes = await self._decodes(sorted({1, *rows}), prompts)
            # A prefill within the engine lacks what HTTP costs, which a lone one's time holds.
            one = statistics.median(s.seconds for s in decodes if s.tokens == 1)
            single = [(await self._ask(1, 1)).wait for _ in range(max(self.repeats, 3))]
            overhead = max(0.0, statistics.median(single) - one)
            inside = [
                Sample(s.tokens, s.context, s.pairs, max(s.seconds - overhead, 1e-4)) for s in lone
            ]
            cost = fit([*decodes, *inside], lone, {"url": self.url, "model": self.model}, **known)
            suspension = await self._suspension(max(prompts), cost)
        found = cost.to_dict() | {"layers": layers} | suspension
        return Cost.from_dict(found)

    # -- measurements --------------------------------------------------------------------------

    async def _prefills(self, prompts: Sequence[int]) -> list[Sample]:
        samples = []
        for prompt in prompts:
            answers = [await self._ask(prompt, 1) for _ in range(self.repeats)]
            samples += [Sample(prompt, 0, pairs(prompt), a.wait) for a in answers]
            self._say(f"prefill of {prompt}", [a.wait for a in answers])
        return samples

    async def _decodes(self, rows: Sequence[int], prompts: Sequence[int]) -> list[Sample]:
        samples = []
        for number in rows:
            for prompt in sorted({min(prompts), max(prompts)}):
                asked = [self._ask(prompt, WATCHED + 2 * number) for _ in range(number)]
                answers = await asyncio.gather(*asked)
                found = self._together(answers)
                samples += found
                self._say(f"decode of {number} after {prompt}", [s.seconds for s in found])
        return samples

    def _together(self, answers: Sequence[Answer]) -> list[Sample]:
        """Gaps of the first request while all of them decode."""
        began = max(a.tokens[0] for a in answers)
        ended = min(a.tokens[-1] for a in answers)
        first = answers[0]
        samples = []
        for i, (before, at) in enumerate(zip(first.tokens, first.tokens[1:], strict=False)):
            # The first two are left out: a prefill may still have shared their step.
            if before > began and at <= ended and i > 1:
                context = sum(a.prompt + i for a in answers)
                samples.append(Sample(len(answers), context, 0.0, at - before))
        return samples[1:]

    async def _suspension(self, prompt: int, cost: Cost) -> dict[str, float]:
        """What suspending a prefill costs the urgent requests, and the prefill itself."""
        try:
            await self._ask(16, 1, priority=BEST_EFFORT_PRIORITY)
        except CapacityError:
            return {}  # no priorities, so nothing is ever suspended
        alone = [await self._ask(16, URGENT_OUTPUT) for _ in range(self.repeats)]
        undisturbed = [await self._ask(prompt, 1) for _ in range(self.repeats)]
        length = statistics.median(a.wait for a in undisturbed)
        urgent, disturbed = [], []
        for i in range(self.repeats):
            long = asyncio.create_task(self._ask(prompt, 1, priority=BEST_EFFORT_PRIORITY))
            await asyncio.sleep(length * (0.2 + 0.5 * i / self.repeats))
            urgent.append(await self._ask(16, URGENT_OUTPUT))
            disturbed.append(await long)
        if statistics.median(a.wait for a in urgent) > length / 2:
            return {}  # it waited for the prefill: nothing is suspended here
        gap = statistics.median(self._gaps(urgent)) - statistics.median(self._gaps(alone))
        wait = statistics.median(a.wait for a in urgent) - statistics.median(a.wait for a in alone)
        nested = statistics.median(u.tokens[-1] - u.sent for u in urgent) - cost.overhead_s
        lost = statistics.median(d.wait for d in disturbed) - length - nested
        # On average half the time between two yield points is waited for before a suspension.
        suspend = max(0.0, wait - cost.stretch_s / 2)
        self._say("suspension", [suspend])
        return {
            "suspend_s": round(suspend, 6),
            "nested_s": round(max(0.0, gap), 6),
            "resume_s": round(max(0.0, lost), 6),
        }

    @staticmethod
    def _gaps(answers: Sequence[Answer]) -> list[float]:
        return [b - a for r in answers for a, b in zip(r.tokens, r.tokens[1:], strict=False)]

    # -- the server ----------------------------------------------------------------------------

    async def _ask(self, prompt: int, output: int, priority: int | None = None) -> Answer:
        """Send one request of so many tokens and wait for all of its answer."""
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": [self._draw.randint(FIRST_ID, LAST_ID) for _ in range(prompt)],
            "max_tokens": output,
            "min_tokens": output,
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        if priority is not None:
            body["priority"] = priority
        answer = Answer(prompt, time.monotonic())
        seen = 0
        async with self._session.post(f"{self.url}/v1/completions", json=body) as response:
            if response.status != 200:
                text = (await response.text())[:300]
                raise CapacityError(
                    f"capacity: the server refused {prompt} tokens with {output} to generate: "
                    f"{response.status} {text}"
                )
            async for line in response.content:
                found = re.search(rb'"completion_tokens":\s*(\d+)', line)
                if found and int(found[1]) > seen:
                    answer.tokens += [time.monotonic()] * (int(found[1]) - seen)
                    seen = int(found[1])
        if seen != output:
            raise CapacityError(f"capacity: the server sent {seen} of {output} tokens")
        return answer

    async def _json(self, path: str) -> Any:
        async with self._session.get(self.url + path) as response:
            response.raise_for_status()
            return await response.json()

    async def _cache(self) -> dict[str, int]:
        """Number and size of the KV blocks, from ``/metrics``; nothing where it does not say."""
        async with self._session.get(f"{self.url}/metrics") as response:
            text = await response.text() if response.status == 200 else ""
        line = next((x for x in text.splitlines() if x.startswith("vllm:cache_config_info")), "")
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        found = {}
        if labels.get("num_gpu_blocks", "").isdigit():
            found["kv_blocks"] = int(labels["num_gpu_blocks"]) - 1  # vLLM sets one aside
        if labels.get("block_size", "").isdigit():
            found["block_size"] = int(labels["block_size"])
        return found

    def _say(self, what: str, seconds: Sequence[float]) -> None:
        if seconds:
            middle = statistics.median(seconds) * 1e3
            print(f"{what}: {middle:.1f} ms ({len(seconds)})", file=sys.stderr, flush=True)
