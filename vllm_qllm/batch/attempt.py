# SPDX-License-Identifier: Apache-2.0
"""One try to have a request answered, and what it says about request and server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

import httpx

from vllm_qllm.batch import BatchError
from vllm_qllm.batch.answer import Answer, answered, failed, is_success
from vllm_qllm.batch.request import Request

# Answers of a server that does not take the request now: it may have it later.
NOT_NOW = (425, 429, 503)
# Those of what stands before it, when it broke off or was too late.
BROKEN_OFF = (408, 502, 504)
# What a client says before it has reached a server.
NOT_REACHED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# What it says of a request that it cannot send.
NOT_SENT = (httpx.InvalidURL, httpx.LocalProtocolError, httpx.UnsupportedProtocol)
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Attempt:
    """How a try went.

    Attributes:
        result: it is done, with an answer or an error; it failed, and may do so each time; it was
            refused, as all others would be now.
        answer: to be written down if this is the last try.
        problem: what happened, in few words.
        retry_after: header of the answer.
        is_the_servers: the server itself has said that it failed.
    """

    result: Literal["done", "failed", "refused"]
    answer: Answer
    problem: str = ""
    retry_after: str | None = None
    is_the_servers: bool = False


class Sender:
    """Asks one server.

    Args:
        client: knows the server and the key, and follows no redirects.
        timeout: seconds within which an answer must be there, to its last byte.

    Attributes:
        under_way: number of requests that the server has not answered yet.
    """

    def __init__(self, client: httpx.AsyncClient, timeout: float) -> None:
        self._client, self._timeout = client, timeout
        self.under_way = 0

    async def ask(self, request: Request) -> Attempt:
        """Try once.

        Raises:
            BatchError: the server knows no such key, which holds for all requests.
        """
        self.under_way += 1
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.post(
                    request.url,
                    content=request.data,
                    headers={"Content-Type": "application/json"},
                )
        except NOT_REACHED as error:
            return _without_response("refused", error)
        except NOT_SENT as error:
            return _without_response("done", error)
        except TimeoutError:
            problem = f"no answer within {self._timeout:g} s"
            return Attempt("failed", failed("timeout", problem), problem)
        except httpx.RequestError as error:
            return _without_response("failed", error)
        finally:
            self.under_way -= 1
        return self._judge(request.url, response)

    def _judge(self, url: str, response: httpx.Response) -> Attempt:
        status = response.status_code
        if status == 401:
            raise BatchError("the server knows no such key: set OPENAI_API_KEY")
        answer, problem = answered(url, response), f"status {status}"
        if status in NOT_NOW:
            return Attempt("refused", answer, problem, response.headers.get("Retry-After"))
        if status in BROKEN_OFF:
            return Attempt("failed", answer, problem)
        if status == 500 or (is_success(status) and not answer.is_good):
            return Attempt("failed", answer, problem, is_the_servers=True)
        return Attempt("done", answer)

    async def is_there(self) -> bool:
        """Whether the server serves others."""
        try:
            health = await self._client.get("/health", timeout=CONNECT_SECONDS)
        except httpx.RequestError:
            return False
        return health.status_code < 500 and health.status_code not in (*NOT_NOW, *BROKEN_OFF)


def _without_response(
    result: Literal["done", "failed", "refused"], error: httpx.RequestError | httpx.InvalidURL
) -> Attempt:
    problem = f"{type(error).__name__}: {error}"
    return Attempt(result, failed("connection", problem), problem)
