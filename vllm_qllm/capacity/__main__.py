# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.capacity measure | simulate | plan``; see ``docs/capacity.md``."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from typing import Any

from vllm_qllm.capacity import options, slo
from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.errors import CapacityError, check
from vllm_qllm.capacity.fleet import Fleet
from vllm_qllm.capacity.report import numbers, summary
from vllm_qllm.capacity.server import Server, with_policy
from vllm_qllm.config import ConfigError

Result = tuple[str, int, dict[str, Any]]


def measure(arguments: argparse.Namespace) -> None:
    """Measure a running server and write its cost file."""
    from vllm_qllm.capacity.probe import Probe  # its client is not needed to simulate

    probe = Probe(arguments.url, arguments.model, arguments.repeats)
    cost = probe.run(
        options.integers("--prompts", arguments.prompts),
        options.integers("--rows", arguments.rows),
        arguments.layers,
    )
    cost.save(arguments.out)
    print(f"{arguments.out}: {len(cost.step)} step sizes, noise {cost.noise:.0%}")


def simulate(arguments: argparse.Namespace) -> list[Result]:
    """Every policy on every number of replicas."""
    return [
        _run(arguments, server, replicas)
        for server in _servers(arguments)
        for replicas in arguments.replicas
    ]


def plan(arguments: argparse.Namespace) -> list[Result]:
    """For each policy the fewest replicas that keep the SLOs."""
    check(bool(arguments.slo), "--slo", None, "one or more, as latency_sensitive:ttft=0.5")
    check(0 < arguments.attainment <= 1, "--attainment", arguments.attainment, "above 0, up to 1")
    results = []
    for server in _servers(arguments):
        tried: dict[int, Result] = {}

        def enough(replicas: int, server: Server = server, tried: Any = tried) -> bool:
            tried[replicas] = result = _run(arguments, server, replicas)
            kept = [c["attained"] for c in result[2].values() if "attained" in c]
            return min(kept) >= arguments.attainment

        results.append(tried[slo.fewest(enough, arguments.most)])
    return results


def _servers(arguments: argparse.Namespace) -> list[Server]:
    base = options.server(arguments, Cost.load(arguments.cost))
    return [with_policy(base, policy, arguments.priority_config) for policy in arguments.policy]


def _run(arguments: argparse.Namespace, server: Server, replicas: int) -> Result:
    classes = server.class_names
    slos = [slo.parse(text, classes) for text in arguments.slo]
    load = options.workload(arguments, classes)
    window = (arguments.warm_up, math.inf)
    fleet = Fleet(
        server, Cost.load(arguments.cost), replicas, arguments.routing, window, arguments.seed
    )
    began = time.perf_counter()
    result = numbers(fleet.run(load), classes, slos)
    took = time.perf_counter() - began
    kept = "".join(f", {n} kept {c['attained']:.2%}" for n, c in result.items() if "attained" in c)
    print(f"{server.label}, {replicas} replicas: {took:.1f} s{kept}", file=sys.stderr, flush=True)
    return server.label, replicas, result


def main() -> int:
    """Run one command; bad input ends with status 2 and one sentence."""
    arguments = options.parser().parse_args()
    try:
        if arguments.command == "measure":
            measure(arguments)
            return 0
        results = (simulate if arguments.command == "simulate" else plan)(arguments)
    except (CapacityError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    if arguments.json:
        rows = [{"what": w, "replicas": n, "classes": result} for w, n, result in results]
        print(json.dumps(rows, indent=1))
    else:
        print(summary(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
