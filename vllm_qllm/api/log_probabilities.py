# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities are put into words in pieces, between which the server serves others.

Each of them is a token to decode, in the event loop through which all answers go: those of a long
prompt take it for seconds. And answers leave the engine in one line, so that an urgent one waits
behind all that less urgent ones have to be put into words before it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from dataclasses import dataclass
from typing import Any

from vllm.logger import init_logger
from vllm.v1.metrics.stats import IterationStats
from vllm.v1.outputs import LogprobsTensors

from vllm_qllm.config import PriorityConfig

logger = init_logger("vllm.qllm")

# An output with more entries waits its turn; one of a less urgent class that has a handful, too.
ENTRIES_URGENT, ENTRIES = 512, 8
# Of the event loop, at a time; and how many entries at least.
PIECE_SECONDS, PIECE_ENTRIES = 0.001, 24


@dataclass(slots=True)
class _Waiting:
    state: Any
    output: Any
    timestamp: float | None
    weight_version: str | None
    row: int = 0


class LogProbabilities:
    """Replaces two methods of an output processor, on that object.

    Args:
        client: an ``AsyncLLM``, whose processor it is.
        config: of the server.
    """

    def __init__(self, client: Any, config: PriorityConfig) -> None:
        self._client, self._config = client, config
        self._processor = client.output_processor
        self._process, self._add = self._processor.process_outputs, self._processor.add_request
        self._processor.process_outputs = self.process_outputs
        self._processor.add_request = self.add_request
        self._queue: list[tuple[int, int, _Waiting]] = []
        self._numbers = itertools.count()
        self._task: asyncio.Task[None] | None = None

    def add_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """As ``OutputProcessor.add_request``; its class is noted."""
        self._add(request, *args, **kwargs)
        state = self._processor.request_states.get(request.request_id)
        if state is not None and not hasattr(state, "priority_level"):  # more of it may come
            state.priority_level = self._config.level(request.priority)
            state.priority_waiting = 0

    def process_outputs(
        self,
        outputs: list[Any],
        timestamp: float | None = None,
        stats: Any = None,
        weight_version: str | None = None,
    ) -> Any:
        """As ``OutputProcessor.process_outputs``, of all but those which take long."""
        now = []
        for output in outputs:
            state = self._processor.request_states.get(output.request_id)
            if state is None or not (state.priority_waiting or _is_large(state, output)):
                now.append(output)
                continue
            state.priority_waiting += 1  # what comes after it must not overtake it
            waiting = _Waiting(state, output, timestamp, weight_version)
            heapq.heappush(self._queue, (state.priority_level, next(self._numbers), waiting))
        if self._queue and self._task is None:
            self._task = asyncio.create_task(self._work())
        return self._process(now, timestamp, stats, weight_version=weight_version)

    async def _work(self) -> None:
        while self._queue:
            level = self._queue[0][0]
            began = time.perf_counter()
            aborts: list[str] = []
            while self._queue and time.perf_counter() - began < PIECE_SECONDS:
                aborts += self._piece()
            if aborts:
                await self._client.engine_core.abort_requests_async(aborts)
            # Half of the loop is left to more urgent requests, while there are any.
            spent = time.perf_counter() - began
            await asyncio.sleep(spent if self._serves_above(level) else 0)
        self._task = None

    def _serves_above(self, level: int) -> bool:
        return any(s.priority_level < level for s in self._processor.request_states.values())

    def _piece(self) -> list[str]:
        """Do a part of what is first; returns requests that ended by it."""
        waiting = self._queue[0][2]
        state, output = waiting.state, waiting.output
        try:
            if self._processor.request_states.get(output.request_id) is state:
                if self._some_rows(waiting):
                    return []
                output.new_prompt_logprobs_tensors = None
                stats = IterationStats() if self._processor.log_stats else None
                version = waiting.weight_version
                processed = self._process(
                    [output], waiting.timestamp, stats, weight_version=version
                )
                if self._client.logger_manager is not None:
                    self._client.logger_manager.record(None, stats)
                self._pop()
                return list(processed.reqs_to_abort)
        except Exception as error:  # it is this request's alone
            logger.exception("The log-probabilities of a request cannot be put into words.")
            state.queue.put(error)
        self._pop()
        return []

    def _pop(self) -> None:
        heapq.heappop(self._queue)[2].state.priority_waiting -= 1

    def _some_rows(self, waiting: _Waiting) -> bool:
        """Put some rows of a prompt into words; whether there were any left."""
        tensors = waiting.output.new_prompt_logprobs_tensors
        if tensors is None or waiting.row >= len(tensors.logprobs):
            return False
        rows = max(1, PIECE_ENTRIES // tensors.logprobs.shape[1])
        part = slice(waiting.row, waiting.row + rows)
        waiting.row = part.stop
        waiting.state.logprobs_processor._update_prompt_logprobs(
            LogprobsTensors(
                tensors.logprob_token_ids[part],
                tensors.logprobs[part],
                tensors.selected_token_ranks[part],
            )
        )
        return True


def _is_large(state: Any, output: Any) -> bool:
    of_prompt, new = output.new_prompt_logprobs_tensors, output.new_logprobs
    if (of_prompt is None and new is None) or state.logprobs_processor is None:
        return False
    entries = 0 if of_prompt is None else of_prompt.logprobs.numel()
    entries += 0 if new is None else new.logprobs.size
    return bool(entries > (ENTRIES if state.priority_level else ENTRIES_URGENT))


def in_pieces(client: Any, config: PriorityConfig) -> None:
    """Let an engine's client put log-probabilities into words in pieces.

    Args:
        client: an ``AsyncLLM``. Request handlers share it: only the first call changes it.
        config: of the server.
    """
    if getattr(client, "priority_log_probabilities", None) is None:
        client.priority_log_probabilities = LogProbabilities(client, config)
