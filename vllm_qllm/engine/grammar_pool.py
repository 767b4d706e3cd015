# SPDX-License-Identifier: Apache-2.0
"""Compiles grammars by class: an urgent one never waits behind less urgent ones.

A compilation cannot be interrupted, and vLLM compiles in order of arrival. Here the most urgent
class has threads of its own. Each other class has one that never takes what is less urgent, and all
of these run at a lower priority of the operating system: compiling takes no core from a step.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from vllm.v1.request import Request
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

from vllm_qllm.engine.grammar_limits import GrammarLimits, GrammarRefusedError

# Compilations hold Python's lock for moments only, but must get a core soon to let go of it.
NICENESS = 10
# What still compiles then is left to the end of the process.
SHUTDOWN_SECONDS = 1.0

Compile = Callable[[Request], StructuredOutputGrammar]


class Compilation(Future[StructuredOutputGrammar]):
    """The grammar of one request, once it is compiled.

    Attributes:
        asked: when it was asked for, ``time.monotonic()`` seconds.
        started: when a thread took it, None before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = time.monotonic()
        self.started: float | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    compilation: Compilation
    compile: Compile
    request: Request


class GrammarPool(Executor):
    """Stands for the ``executor`` of a ``StructuredOutputManager``.

    Args:
        level_of: class of a request.
        num_classes: number of priority classes.
        threads: that vLLM would compile in, at most.
        limits: what a class may compile; they meter its grammars.
    """

    def __init__(
        self,
        level_of: Callable[[Request], int],
        num_classes: int,
        threads: int,
        limits: GrammarLimits,
    ) -> None:
        self._level_of = level_of
        self._limits = limits
        self._queues: list[deque[_Job]] = [deque() for _ in range(num_classes)]
        self._changed = threading.Condition()
        self._closed = False
        # The classes that each thread serves, the most urgent first.
        least = num_classes - 1
        self._serves = [range(1)] * threads + [range(1, level + 1) for level in range(1, least + 1)]
        if least:
            self._serves += [range(1, least + 1)] * (threads - 1)
        self._threads: list[threading.Thread] = []

    def submit(  # type: ignore[override]
        self, fn: Compile, /, request: Request
    ) -> Compilation:
        """Let ``fn(request)`` be called in the turn of the request's class.

        A grammar larger than its class's is not compiled: its result is the refusal.
        """
        job = _Job(Compilation(), fn, request)
        try:
            self._limits.check_size(request)
        except GrammarRefusedError as refused:
            job.compilation.set_exception(refused)
            return job.compilation
        with self._changed:
            if self._closed:
                raise RuntimeError("no grammar is compiled after shutdown")
            if not self._threads:  # a server without grammars has none
                self._threads = [
                    threading.Thread(target=self._work, args=(serves,), name="grammar", daemon=True)
                    for serves in self._serves
                ]
                for thread in self._threads:
                    thread.start()
            self._queues[self._level_of(request)].append(job)
            self._changed.notify_all()
        return job.compilation

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more; what is being compiled is waited for a moment, as it may never end."""
        with self._changed:
            self._closed = True
            for queue in self._queues if cancel_futures else ():
                while queue:
                    queue.popleft().compilation.cancel()
            self._changed.notify_all()
        ends = time.monotonic() + SHUTDOWN_SECONDS
        for thread in self._threads if wait else ():
            thread.join(max(0.0, ends - time.monotonic()))

    def _work(self, serves: range) -> None:
        if serves.start:
            with contextlib.suppress(OSError):
                thread = threading.get_native_id()
                nicer = max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
                os.setpriority(os.PRIO_PROCESS, thread, nicer)
        while (job := self._next(serves)) is not None:
            compilation = job.compilation
            # Nobody waits for the grammar of a client that has gone.
            if job.request.is_finished():
                compilation.cancel()
            if not compilation.set_running_or_notify_cancel():
                continue
            compilation.started = time.monotonic()
            try:
                grammar = job.compile(job.request)
                compilation.set_result(self._limits.metered(job.request, grammar))
            except BaseException as error:  # it is the request's; the thread must go on
                compilation.set_exception(error)
            # A grammar lives as long as its request, not until the next one is compiled.
            del job, compilation

    def _next(self, serves: range) -> _Job | None:
        def first() -> Any:
            return next((self._queues[level] for level in serves if self._queues[level]), None)

        with self._changed:
            self._changed.wait_for(lambda: self._closed or first())
            queue = first()
            return queue.popleft() if queue else None
