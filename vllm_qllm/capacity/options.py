# SPDX-License-Identifier: Apache-2.0
"""The command line of ``python -m vllm_qllm.capacity``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vllm_qllm.capacity import trace
from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.errors import CapacityError, check
from vllm_qllm.capacity.router import ROUTERS
from vllm_qllm.capacity.server import Server
from vllm_qllm.capacity.workload import Arrival, Clients, Workload, merged, poisson, scaled

EPILOG = """
Load, each of these as often as you like; CLASS is a class of --priority-config:
  --trace CLASS=FILE             an Azure CSV (TIMESTAMP,ContextTokens,GeneratedTokens) or a
                                 Mooncake .jsonl (timestamp, input_length, output_length)
  --poisson CLASS=RATE:IN:OUT    requests a second, tokens in, tokens out
  --clients CLASS=N:IN:OUT       N clients, each with one request at a time

  python -m vllm_qllm.capacity plan --cost cost.json --policy strict fcfs \\
      --trace latency_sensitive=conv.csv --trace best_effort=code.csv \\
      --slo latency_sensitive:ttft=0.5,tpot=0.05 --attainment 0.99
"""


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(
        prog="python -m vllm_qllm.capacity",
        description="How many replicas a load needs, by simulation of the scheduling policies.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure", help="measure a running, idle server's step costs")
    measure.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    measure.add_argument("--model", help="as the server names it; default: its first one")
    measure.add_argument("-o", "--out", type=Path, required=True, help="the cost file to write")
    measure.add_argument("--prompts", default="16,64,256,512,1024,2048", help="prefill lengths")
    measure.add_argument("--rows", default="1,2,3,4,6,8", help="requests that decode together")
    measure.add_argument("--repeats", type=int, default=5, help="of each prefill")
    measure.add_argument("--layers", type=int, default=16, help="of the model")
    for name, what in (
        ("simulate", "one or more policies on a given number of replicas"),
        ("plan", "the fewest replicas that keep the SLOs"),
    ):
        command = commands.add_parser(
            name,
            help=what,
            description=what,
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _simulation(command)
        if name == "simulate":
            command.add_argument("--replicas", type=int, nargs="+", default=[1])
        else:
            command.add_argument("--most", type=int, default=1000, help="replicas to try at most")
            command.add_argument("--attainment", type=float, default=0.99, help="of every SLO")
    return top


def _simulation(command: argparse.ArgumentParser) -> None:
    command.add_argument("--cost", type=Path, required=True, help="a file made by `measure`")
    command.add_argument(
        "--policy", nargs="+", default=["strict"], help="fcfs, priority, strict, step, mod:Class"
    )
    command.add_argument("--priority-config", help="as of vllm serve: JSON or a file")
    command.add_argument("--routing", default="class_aware", help=", ".join(ROUTERS))
    command.add_argument("--trace", action="append", default=[], metavar="CLASS=FILE")
    command.add_argument("--poisson", action="append", default=[], metavar="CLASS=RATE:IN:OUT")
    command.add_argument("--clients", action="append", default=[], metavar="CLASS=N:IN:OUT")
    command.add_argument("--seconds", type=float, help="of the load; default: the whole trace")
    command.add_argument("--warm-up", type=float, default=0.0, help="seconds that do not count")
    command.add_argument("--rate", type=float, default=1.0, help="times the requests of traces")
    command.add_argument("--lengths", type=float, default=1.0, help="times the tokens of traces")
    command.add_argument("--max-num-batched-tokens", type=int, default=2048)
    command.add_argument("--max-num-seqs", type=int, default=128)
    command.add_argument("--max-model-len", type=int, default=16384)
    command.add_argument("--long-prefill-token-threshold", type=int, default=0)
    command.add_argument("--kv-blocks", type=int, help="default: as measured, else 8192")
    command.add_argument("--block-size", type=int, help="default: as measured, else 16")
    command.add_argument("--slo", action="append", default=[], metavar="CLASS:ttft=S,tpot=S,e2e=S")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--json", action="store_true", help="print JSON, not a table")


def server(arguments: argparse.Namespace, cost: Cost) -> Server:
    """The replica that the options describe, still without a policy."""
    return Server(
        token_budget=arguments.max_num_batched_tokens,
        slots=arguments.max_num_seqs,
        max_model_len=arguments.max_model_len,
        long_prefill_threshold=arguments.long_prefill_token_threshold,
        kv_blocks=arguments.kv_blocks or cost.kv_blocks or 8192,
        block_size=arguments.block_size or cost.block_size or 16,
    )


def workload(arguments: argparse.Namespace, classes: Sequence[str]) -> Workload:
    """The load that the options describe.

    Raises:
        CapacityError: a file, a class or a number is none, or there is no load at all.
    """
    streams: list[list[Arrival]] = []
    for text in arguments.trace:
        level, path = _of_class("--trace", text, classes)
        rows = trace.read(Path(path), level)
        if arguments.seconds is not None:
            rows = [row for row in rows if row[0] < arguments.seconds]
        streams.append(scaled(rows, arguments.rate, arguments.lengths, f"{arguments.seed} {text}"))
    last = max((rows[-1][0] for rows in streams if rows), default=0.0)
    seconds = arguments.seconds if arguments.seconds is not None else last
    for text in arguments.poisson:
        level, rest = _of_class("--poisson", text, classes)
        rate, prompt, output = _numbers("--poisson", text, rest)
        check(seconds > 0, "--seconds", arguments.seconds, "a duration, as there is no trace")
        stream = poisson(level, rate, int(prompt), int(output), seconds, f"{arguments.seed} {text}")
        streams.append(list(stream))
    clients = []
    for text in arguments.clients:
        level, rest = _of_class("--clients", text, classes)
        number, prompt, output = map(int, _numbers("--clients", text, rest))
        check(seconds > 0, "--seconds", arguments.seconds, "a duration, as there is no trace")
        clients.append(Clients(level, number, ((prompt, output),)))
    check(bool(streams or clients), "load", None, "--trace, --poisson or --clients")
    return Workload(merged(streams), tuple(clients), seconds)


def integers(name: str, text: str) -> list[int]:
    """A list such as ``1,2,4``.

    Raises:
        CapacityError: it is none, or holds a number below 1.
    """
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    check(bool(values) and min(values) >= 1, name, text, "integers of at least 1, as 1,2,4")
    return sorted(set(values))


def _of_class(option: str, text: str, classes: Sequence[str]) -> tuple[int, str]:
    name, equals, rest = text.partition("=")
    check(bool(equals) and name in classes, option, text, f"CLASS=…, of {', '.join(classes)}")
    return list(classes).index(name), rest


def _numbers(option: str, text: str, rest: str) -> tuple[float, float, float]:
    try:
        first, second, third = map(float, rest.split(":"))
    except ValueError as error:
        raise CapacityError(
            f"capacity: {option} is {text!r}; allowed: CLASS= and three numbers, as 0.5:64:16"
        ) from error
    check(min(first, second, third) > 0, option, text, "numbers above 0")
    return first, second, third
