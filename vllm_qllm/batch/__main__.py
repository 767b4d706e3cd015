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
from vllm_qllm.batch.attempt import CONNECT_SECONDS, Sender
from vllm_qllm.batch.request_file import RequestFile
from vllm_qllm.batch.retry import Retry
from vllm_qllm.batch.runner import Runner


def main(arguments: list[str] | None = None) -> int:
    """Run the batch; returns the exit status: 0 when every request has an answer, no error."""
    args = _parser().parse_args(arguments)
    try:
        # Before the event loop runs: it may have to wait for the writer of a pipe.
        requests = RequestFile(args.input, args.service_tier)
        for complaint in requests.complaints:
            print(complaint, file=sys.stderr)
        answers = AnswerFile(args.output, requests.ids, requests.status)
        done = len(requests.ids & answers.answered)
        try:
            asyncio.run(_run(args, requests, answers))
        finally:
            answers.close()
            _report(args, requests, answers, done)
    except BatchError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; run it again to go on", file=sys.stderr)
        return 130
    good = answers.answered - answers.errors
    return 0 if requests.ids <= good and not requests.nameless else 1


async def _run(args: argparse.Namespace, requests: RequestFile, answers: AnswerFile) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    # None: only where somebody looks.
    done = len(requests.ids & answers.answered)
    bar = tqdm(total=len(requests.ids), initial=done, unit="req", disable=None)

    def show() -> None:
        bar.update()
        bar.set_postfix(errors=len(answers.errors & requests.ids), refresh=False)

    with bar:
        async with _client(args) as client:
            sender = Sender(client, args.timeout)
            runner = Runner(sender, answers, Retry(args.patience), show)
            await runner.run(requests.without(answers.answered), args.concurrency)


def _client(args: argparse.Namespace) -> httpx.AsyncClient:
    headers = credentials.headers()
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        raise BatchError("OPENAI_API_KEY holds a character that no key has, as the end of a line")
    return httpx.AsyncClient(
        base_url=args.url.rstrip("/").removesuffix("/v1"),
        headers=headers,
        # ``Sender`` bounds a whole request.
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=args.concurrency),
    )


def _report(
    args: argparse.Namespace, requests: RequestFile, answers: AnswerFile, before: int
) -> None:
    total, now = len(requests.ids), len(requests.ids & answers.answered)
    errors = len(requests.ids & answers.errors)
    text = (
        f"{now} of {total} answered, {now - before} of them now; {errors} errors in {args.output}"
    )
    if requests.nameless:
        text += f"; {requests.nameless} lines of {args.input} are no requests"
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vllm_qllm.batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-i", "--input", required=True, help="requests, one a line")
    parser.add_argument("-o", "--output", required=True, help="answers are appended to it")
    parser.add_argument(
        "--url", required=True, type=_url, help="of the server, with or without /v1"
    )
    parser.add_argument("--concurrency", type=_positive(int), default=32, help="requests at a time")
    parser.add_argument(
        "--service-tier",
        default="flex",
        help="of requests that name neither a tier nor a priority (default: flex)",
    )
    parser.add_argument(
        "--timeout", type=_positive(float), default=3600.0, help="seconds for one whole answer"
    )
    parser.add_argument(
        "--patience",
        type=_positive(float),
        default=600.0,
        help="give up when no request was taken for so many seconds, as by a server that is down; "
        "seconds in which one is under way do not count",
    )
    return parser


def _url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise argparse.ArgumentTypeError(f"is {text!r}: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise argparse.ArgumentTypeError(f"is {text!r}; allowed: http://HOST:PORT, or https")
    return text


def _positive(kind: type[int] | type[float]):  # type: ignore[no-untyped-def]
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < 10**9:
            raise argparse.ArgumentTypeError(f"is {text}; allowed: above 0, below 1000000000")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
