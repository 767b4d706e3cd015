# SPDX-License-Identifier: Apache-2.0
"""Each alert fires when it has to and is quiet otherwise, as Prometheus's own promtool sees it.

The series are in promtool's notation: ``0+5x10`` begins at 0 and grows by 5 for 10 minutes.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.tools import TREE, program

PROMETHEUS = TREE / "deploy/prometheus"
RULES = [PROMETHEUS / name for name in ("objectives.yml", "alerts.yml")]
LS, BE = 'class="latency_sensitive"', 'class="best_effort"'
A, B = 'job="vllm",instance="a"', 'job="vllm",instance="b"'
Series = dict[str, str]


def first_tokens(cls: str, bound: str, all_: str, timely: str) -> Series:
    """First tokens of a class: all of them, and those within the bound of its objective."""
    name = "qllm_time_to_first_token_seconds"
    return {
        f"{name}_count{{{cls},{A}}}": all_,
        f'{name}_bucket{{{cls},{A},le="{bound}"}}': timely,
    }


def responses(within_quarter: str) -> Series:
    """1000 responses a minute, so many of them within 0.2 s and all within 2.5 s."""
    name = f"qllm_response_seconds_bucket{{{LS},{A},le="
    return {
        f'{name}"0.2"}}': within_quarter,
        f'{name}"2.5"}}': "0+1000x60",
        f'{name}"+Inf"}}': "0+1000x60",
    }


def work(waiting: str, tokens: str, prompts: str) -> Series:
    """Best-effort work of one replica."""
    return {
        f"qllm_requests_waiting{{{BE},{A}}}": waiting,
        f"qllm_requests_running{{{BE},{A}}}": "0x60",
        f"qllm_requests_suspended{{{BE},{A}}}": "0x60",
        f"qllm_generated_tokens_total{{{BE},{A}}}": tokens,
        f"qllm_prompt_tokens_total{{{BE},{A}}}": prompts,
    }


def kv(usage: str, waiting: str) -> Series:
    """KV use and queue of one replica."""
    return {
        f'vllm:kv_cache_usage_perc{{engine="0",{A}}}': usage,
        f"qllm_requests_waiting{{{BE},{A}}}": waiting,
    }


def rates(name: str, per_minute: int, ended_per_minute: int) -> Series:
    """A counter of one replica beside the requests that ended there."""
    return {
        f"{name}{{{BE},{A}}}": f"0+{per_minute}x60",
        f'qllm_requests_total{{{BE},{A},outcome="length"}}': f"0+{ended_per_minute}x60",
    }


def endings(errors: int, others: int) -> Series:
    """Requests a minute that end in an error, and that do not."""
    return {
        f'qllm_requests_total{{{LS},{A},outcome="error"}}': f"0+{errors}x60",
        f'qllm_requests_total{{{LS},{A},outcome="length"}}': f"0+{others}x60",
    }


@dataclass(frozen=True)
class Case:
    """An alert, the series that make it fire, and others that must not.

    Attributes:
        fires: with these it fires once.
        quiet: with each of these it does not.
        at: when it is looked at, as promtool writes times.
        before: when it must not have fired yet, with ``fires``.
    """

    fires: Series
    quiet: tuple[Series, ...]
    at: str
    before: str | None = None


SERVED = {f"qllm_requests_running{{{LS},{A}}}": "0x60"}
UP_A, UP_B = {f"up{{{A}}}": "1x60"}, {f"up{{{B}}}": "1x60"}
DOWN_A, DOWN_B = {f"up{{{A}}}": "1x4 0x56"}, {f"up{{{B}}}": "1x4 0x56"}
STARTS = f"process_start_time_seconds{{{A}}}"

CASES = {
    "QllmReplicaDown": Case(DOWN_A | UP_B, (UP_A | UP_B,), "7m", before="5m"),
    "QllmNoReplica": Case(DOWN_A | DOWN_B, (DOWN_A | UP_B,), "7m", before="4m"),
    "QllmReplicaRestarts": Case(
        {STARTS: "1x5 2x5 3x5 4x5"}, ({STARTS: "1x20"}, {STARTS: "1x5 2x5 3x10"}), "20m"
    ),
    "QllmPolicyOff": Case(UP_A, (UP_A | SERVED, DOWN_A), "10m", before="1m"),
    "QllmObjectiveBurnsFast": Case(
        first_tokens(LS, "0.5", "0+100x120", "0+80x120"),
        (
            # Late, yet within the budget's rate; late in the past; no traffic.
            first_tokens(LS, "0.5", "0+100x120", "0+95x120"),
            first_tokens(LS, "0.5", "0+100x120", "0+80x100 8000+100x20"),
            first_tokens(LS, "0.5", "0x120", "0x120"),
        ),
        "110m",
        before="2m",
    ),
    "QllmObjectiveBurnsSlowly": Case(
        first_tokens(BE, "40.0", "0+100x480", "0+60x480"),
        (
            first_tokens(BE, "40.0", "0+100x480", "0+80x480"),
            first_tokens(BE, "40.0", "0+100x480", "0+60x420 25200+100x60"),
        ),
        "470m",
        before="10m",
    ),
    "QllmRequestsFail": Case(endings(2, 98), (endings(0, 100), endings(1, 199)), "15m", "4m"),
    "QllmResponseSlow": Case(
        responses("0+900x60"), (responses("0+1000x60"), responses("0+995x60")), "30m", before="9m"
    ),
    "QllmUrgentRequestsQueue": Case(
        {f"qllm_requests_waiting{{{LS},{A}}}": "9x60"},
        (
            {f"qllm_requests_waiting{{{LS},{A}}}": "8x60"},
            {f"qllm_requests_waiting{{{BE},{A}}}": "90x60"},
        ),
        "5m",
        before="1m",
    ),
    "QllmEngineStalled": Case(
        {f"qllm_stalled_seconds{{{A}}}": "0x4 60+60x56"},
        # Nothing waits, or steps take half a minute each.
        ({f"qllm_stalled_seconds{{{A}}}": "0x60"}, {f"qllm_stalled_seconds{{{A}}}": "0x4 30x56"}),
        "8m",
        before="4m",
    ),
    "QllmBestEffortStalled": Case(
        work("3x60", "7x60", "9x60"),
        (
            work("0x60", "7x60", "9x60"),
            work("3x60", "7+1x60", "9x60"),
            work("3x60", "7x60", "9+100x60"),
        ),
        "30m",
        before="9m",
    ),
    "QllmPreemptionsChurn": Case(
        rates("qllm_preemptions_total", 20, 10),
        (rates("qllm_preemptions_total", 9, 10),),
        "40m",
        before="14m",
    ),
    "QllmKvFull": Case(
        kv("0.97x60", "2x60"), (kv("0.97x60", "0x60"), kv("0.9x60", "2x60")), "15m", before="9m"
    ),
}

REFUSED = f'qllm_refusals_total{{{BE},{A},tenant="t",reason='
SPILL_ERRORS = f"qllm_spill_errors_total{{{BE},{A}}}"
CASES |= {
    "QllmLoadIsShed": Case(
        {f'{REFUSED}"overload"}}': "0+60x60"},
        ({f'{REFUSED}"overload"}}': "60x60"}, {f'{REFUSED}"rate"}}': "0+60x60"}),
        "15m",
        before="4m",
    ),
    "QllmSpillFails": Case({SPILL_ERRORS: "0x10 3x50"}, ({SPILL_ERRORS: "3x60"},), "15m", "9m"),
}


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts of the rules, by name."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(*arguments: str) -> None:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_and_the_configuration_are_valid() -> None:
    promtool("check", "rules", "--lint-fatal", *map(str, RULES))
    promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_each_alert_has_a_case_and_a_page() -> None:
    assert alerts().keys() == CASES.keys()
    page = (TREE / "docs/operations.md").read_text()
    for name, alert in alerts().items():
        assert f"### {name}\n" in page
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert alert["labels"]["severity"] in ("warning", "critical")


@pytest.mark.parametrize("name", CASES)
def test_it_fires_when_it_has_to(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    expression = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'

    def group(series: Series, *looks: tuple[str, bool]) -> dict[str, Any]:
        firing = [{"labels": "{}", "value": 1}]
        return {
            "interval": "1m",
            "input_series": [{"series": s, "values": v} for s, v in series.items()],
            "promql_expr_test": [
                {"expr": expression, "eval_time": at, "exp_samples": firing if fires else []}
                for at, fires in looks
            ],
        }

    looks = [(case.at, True)] + ([(case.before, False)] if case.before else [])
    file = {
        "rule_files": [str(path) for path in RULES],
        "evaluation_interval": "1m",
        "tests": [
            group(case.fires, *looks),
            *(group(series, (case.at, False)) for series in case.quiet),
        ],
    }
    written = tmp_path / "test.yml"
    written.write_text(yaml.safe_dump(file))
    promtool("test", "rules", str(written))
