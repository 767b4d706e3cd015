# SPDX-License-Identifier: Apache-2.0
"""Sends the requests of a file that have no answer yet, so many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from vllm_qllm.batch import BatchError
from vllm_qllm.batch.answer import Answer, failed
from vllm_qllm.batch.answer_file import AnswerFile
from vllm_qllm.batch.attempt import Attempt, Sender
from vllm_qllm.batch.request import Request
from vllm_qllm.batch.retry import Retry, backoff

# Tries of a request at which the server fails, or breaks off, or is too late.
MAX_FAILURES = 3


class Runner:
    """One run.

    Args:
        sender: asks the server.
        answers: where they go.
        retry: decides about waiting.
        done: is called after each answer.
    """

    def __init__(
        self, sender: Sender, answers: AnswerFile, retry: Retry, done: Callable[[], None]
    ) -> None:
        self._sender, self._answers, self._retry, self._done = sender, answers, retry, done

    async def run(self, requests: Iterator[Request], concurrency: int) -> None:
        """Get an answer or an error for each of them.

        Args:
            requests: that have no answer yet; each is taken when there is a place for it.
            concurrency: how many may be under way.

        Raises:
            BatchError: patience has run out, the server knows no such key, or the disk is full.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(self._work(requests))
        except* BatchError as errors:
            raise errors.exceptions[0] from None

    async def _work(self, requests: Iterator[Request]) -> None:
        for request in requests:
            if request.problem:
                answer = failed("invalid_request", request.problem)
            else:
                answer = await self._answer(request)
            self._answers.add(request.custom_id, answer)
            self._done()

    async def _answer(self, request: Request) -> Answer:
        failures = 0
        while True:
            await self._retry.wait()
            began = self._retry.now()
            attempt = await self._sender.ask(request)
            if attempt.result == "failed":
                failures += 1
                if failures < MAX_FAILURES:
                    await asyncio.sleep(backoff(failures - 1))
                    continue
            if attempt.result == "done" or (
                attempt.result == "failed" and await self._is_to_blame(attempt)
            ):
                self._retry.answered()
                return attempt.answer
            self._retry.later(began, attempt.retry_after)
            # What is under way may be answered yet, and has its own bound.
            if self._retry.is_over and not self._sender.under_way:
                problem = attempt.problem
                raise BatchError(f"no answer for too long ({problem}); run it again to go on")

    async def _is_to_blame(self, attempt: Attempt) -> bool:
        """Whether it is the request that cannot be answered, and not the server that is down."""
        return attempt.is_the_servers or await self._sender.is_there()
