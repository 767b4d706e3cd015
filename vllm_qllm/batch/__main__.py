# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.batch``: a file of requests as best-effort work of a running server.

    python -m vllm_qllm.batch -i in.jsonl -o out.jsonl --url http://localhost:8000

The files have the form of OpenAI's batch API. Run it again after a crash, with the same files:
what is answered is not asked again. OPENAI_API_KEY is the key, where the server wants one.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import httpx
from tqdm import tqdm

from vllm_qllm import credentials
from vllm_qllm.batch import BatchError
from vllm_qllm.batch.answer_file import AnswerFile
from vllm_qllm.batch.request_file import RequestFile
from vllm_qllm.batch.retry import Retry
from vllm_qllm.batch.runner import Runner


def main(arguments: list[str] | None = None) -> int:
    """Run the batch; returns the exit status: 0 when all are answered and none is an error."""
    asked = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(asked))
    except BatchError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; run it again to go on", file=sys.stderr)
        return 130


async def _run(asked: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    requests = RequestFile(asked.input, asked.service_tier)
    answers = AnswerFile(asked.output)
    left = (request for request in requests if request.custom_id not in answers.answered)
    done = len(requests.ids & answers.answered)
    client = httpx.AsyncClient(
        base_url=asked.url.rstrip("/").removesuffix("/v1"),
        headers=credentials.headers(),
        timeout=httpx.Timeout(asked.timeout, connect=10.0),
        limits=httpx.Limits(max_connections=asked.concurrency),
    )
    # None: only where somebody looks.
    bar = tqdm(total=len(requests.ids), initial=done, unit="req", disable=None)

    def show(status: int) -> None:
        bar.update()
        bar.set_postfix(errors=answers.failed, refresh=False)

    try:
        with bar:
            async with client:
                runner = Runner(client, answers, Retry(asked.patience), show)
                await runner.run(left, asked.concurrency)
    finally:
        answers.close()
        now = len(requests.ids & answers.answered)
        print(f"{now} of {len(requests.ids)} answered, {now - done} of them now; "
              f"{answers.failed} errors in {asked.output}")  # fmt: skip
    return 1 if answers.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vllm_qllm.batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-i", "--input", required=True, help="requests, one a line")
    parser.add_argument("-o", "--output", required=True, help="answers are appended to it")
    parser.add_argument("--url", required=True, help="of the server, with or without /v1")
    parser.add_argument("--concurrency", type=_positive(int), default=32, help="requests at a time")
    parser.add_argument(
        "--service-tier",
        default="flex",
        help="of requests that name neither a tier nor a priority (default: flex)",
    )
    parser.add_argument(
        "--timeout", type=_positive(float), default=3600.0, help="seconds for one answer"
    )
    parser.add_argument(
        "--patience",
        type=_positive(float),
        default=600.0,
        help="give up after so many seconds without any answer, as of a server that is down",
    )
    return parser


def _positive(kind: type[int] | type[float]):  # type: ignore[no-untyped-def]
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < 10**9:
            raise argparse.ArgumentTypeError(f"is {text}; allowed: above 0, below 1000000000")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
