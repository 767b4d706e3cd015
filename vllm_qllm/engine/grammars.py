# SPDX-License-Identifier: Apache-2.0
"""Grammars of one scheduler's requests: compiled by class, and bounded in what they cost.

The engine's thread accepts each token and fills each mask. It schedules nobody meanwhile, however
urgent, and a call cannot be interrupted.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from vllm.logger import init_logger
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output.backend_guidance import GuidanceBackend

from vllm_qllm.config import PriorityConfig
from vllm_qllm.engine.grammar_limits import GrammarLimits, GrammarRefusedError
from vllm_qllm.engine.grammar_pool import Compilation, GrammarPool
from vllm_qllm.engine.metered_grammar import MeteredGrammar
from vllm_qllm.engine.requests import Requests

logger = init_logger("vllm.qllm")

# Of an allowance, for all riders of a step of more urgent requests together.
RIDERS_SHARE = 0.1


def metered(request: Request) -> MeteredGrammar | None:
    """The grammar of a request whose cost is limited, once it is compiled."""
    structured = request.structured_output_request
    grammar = None if structured is None else structured.grammar
    return grammar if isinstance(grammar, MeteredGrammar) else None


class Grammars:
    """Replaces the threads in which a scheduler's grammars are compiled.

    Args:
        scheduler: vLLM's part of it, whose ``structured_output_manager`` has been built.
        config: limits of grammars.
        requests: of the scheduler.
    """

    def __init__(self, scheduler: Scheduler, config: PriorityConfig, requests: Requests) -> None:
        self._scheduler = scheduler
        self._requests = requests
        self.limits = GrammarLimits(config, requests.level)
        # Why a request that ends with an error was refused, until its client is told.
        self._refused: dict[str, str] = {}
        manager = scheduler.structured_output_manager
        executor = getattr(manager, "executor", None)  # none without a tokenizer
        if executor is not None and not isinstance(executor, GrammarPool):
            manager.executor = GrammarPool(
                requests.level, len(config.classes), executor._max_workers, self.limits
            )
            executor.shutdown(wait=False)  # it has no thread before the first grammar
            create = manager._create_grammar
            manager._create_grammar = functools.partial(_apart, manager, create)

    # -- waiting for a grammar -----------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Give up grammars that are not ready within their class's time.

        Args:
            now: ``time.monotonic()`` seconds.
        """
        for request in self._requests.deferred:
            structured = request.structured_output_request
            compilation = None if structured is None else structured._grammar
            if not isinstance(compilation, Compilation) or compilation.done():
                continue
            try:
                started = compilation.started is not None
                self.limits.check_wait(request, now - compilation.asked, started)
            except GrammarRefusedError as refused:
                compilation.cancel()  # unless it is being compiled, which cannot be interrupted
                structured._grammar = refused

    # -- steps ---------------------------------------------------------------------------------

    def affordable(self, requests: list[Request], leading: bool) -> list[Request]:
        """Those of ``requests`` whose grammars one step can take.

        Together they are expected to cost what one token may. Those that were left out longest go
        first.

        Args:
            requests: of any classes.
            leading: whether it is their step, in which one goes in any case, or that of more
                urgent ones.
        """
        costs = [(r, g) for r in requests if (g := metered(r)) is not None and g.last]
        room: dict[int, float] = {}
        left_out = set()
        for request, grammar in sorted(costs, key=lambda pair: pair[1].settled_at):
            level = self._requests.level(request)
            is_first = level not in room
            if is_first:
                allowance = self.limits.allowance(request) or 0.0
                room[level] = allowance if leading else RIDERS_SHARE * allowance
            if grammar.last <= room[level] or (leading and is_first):
                room[level] -= grammar.last
            else:
                left_out.add(request.request_id)
        return [r for r in requests if r.request_id not in left_out] if left_out else requests

    def note_failed(self) -> None:
        """Before vLLM ends requests whose grammars have failed: note which were refused."""
        for request_id in self._scheduler.grammar_compile_error_reqs:
            request = self._requests.known(request_id)
            structured = None if request is None else request.structured_output_request
            if structured is not None and isinstance(structured.grammar, GrammarRefusedError):
                self._refused[request_id] = str(structured.grammar)

    def charge(self, requests: list[Request], outputs: dict[int, EngineCoreOutputs]) -> None:
        """After a step: end those of its requests whose grammars cost too much.

        Args:
            requests: of the step.
            outputs: of the step, by client; those of refused requests get the reason.
        """
        ended = []
        for request in requests:
            grammar = metered(request)
            if grammar is None or not grammar.spent or request.is_finished():
                continue
            try:
                self.limits.check_cost(request, grammar)
            except GrammarRefusedError as refused:
                self._refused[request.request_id] = str(refused)
                ended.append(request.request_id)
        for request in self._scheduler.finish_requests(ended, RequestStatus.FINISHED_ERROR):
            of_client = outputs.setdefault(request.client_index, EngineCoreOutputs())
            of_client.outputs.append(
                EngineCoreOutput(
                    request_id=request.request_id,
                    new_token_ids=[],
                    finish_reason=request.get_finished_reason(),
                    events=request.take_events(),
                    trace_headers=request.trace_headers,
                )
            )
        if not self._refused:
            return
        for of_client in outputs.values():
            for output in of_client.outputs:
                if output.finish_reason == FinishReason.ERROR:
                    output.stop_reason = self._refused.pop(output.request_id, None)
                    if output.stop_reason is not None:
                        logger.warning("Request %s: %s.", output.request_id, output.stop_reason)
        self._refused.clear()


def _apart(manager: Any, create: Callable[[Request], Any], request: Request) -> Any:
    """``create(request)``, with threads that do not see each other's grammars.

    vLLM's guidance backend keeps the grammar that it compiles in an attribute of its own, from
    which another thread may then take it.
    """
    backend = manager.backend
    if isinstance(backend, GuidanceBackend) and "compile_grammar" not in vars(backend):
        backend.compile_grammar = lambda *args, **kwargs: GuidanceBackend.compile_grammar(  # type: ignore[method-assign]
            copy.copy(backend), *args, **kwargs
        )
    return create(request)
