# SPDX-License-Identifier: Apache-2.0
"""Sends the requests of a file that have no answer yet, so many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from vllm_qllm.batch import BatchError
from vllm_qllm.batch.answer_file import AnswerFile
from vllm_qllm.batch.request_file import Request
from vllm_qllm.batch.retry import AGAIN, Retry

# Tries of a request at which the server itself fails.
MAX_FAILURES = 3


class Runner:
    """One run.

    Args:
        client: knows the server and the key.
        answers: where they go.
        retry: decides about waiting.
        done: is called after each answer with its status.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        answers: AnswerFile,
        retry: Retry,
        done: Callable[[int], None],
    ) -> None:
        self._client, self._answers, self._retry, self._done = client, answers, retry, done

    async def run(self, requests: Iterator[Request], concurrency: int) -> None:
        """Answer all of them.

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
            await self._answer(request)

    async def _answer(self, request: Request) -> None:
        tries = failures = 0
        while True:
            await self._retry.wait()
            problem, retry_after = "", None
            try:
                answer = await self._client.post(request.url, json=request.body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                status = answer.status_code
                if status == 401:
                    raise BatchError("the server knows no such key: set OPENAI_API_KEY")
                failures += status == 500
                if status not in AGAIN and (status != 500 or failures >= MAX_FAILURES):
                    break
                problem, retry_after = f"status {status}", answer.headers.get("Retry-After")
            if self._retry.is_over:
                raise BatchError(f"no answer for too long ({problem}); run it again to go on")
            tries += 1
            self._retry.later(tries, retry_after)
        self._retry.answered()
        self._answers.add(
            request.custom_id, status, answer.headers.get("X-Request-Id"), _body(answer)
        )
        self._done(status)


def _body(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return {"error": {"message": answer.text[:1000], "code": answer.status_code}}
