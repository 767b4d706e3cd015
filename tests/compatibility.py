# SPDX-License-Identifier: Apache-2.0
"""``docs/compatibility.md``, made from the tests that ran and passed.

A test says what it covers, once or several times::

    @pytest.mark.covers("Logprobs", "eager", suspended=True)

``suspended`` means that the test itself asserts that steps with such requests were suspended.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# The tests of `make test`, as pyproject.toml chooses them.
USUAL = "not thorough"
PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
MODES = ("eager", "compiled", "tp2")
# Every name that a test may use, in the order of the page.
SECTIONS = {
    "Models": (
        "Mixtral",
        "Qwen3-MoE",
        "Qwen2-MoE (shared expert)",
        "OLMoE",
        "GPT-OSS",
        "DeepSeek-V2 (MLA, dense first layer)",
        "Llama (dense)",
    ),
    "Engine": (
        "Prefix caching",
        "Sliding windows",
        "Multiprocess executor",
        "In-process executor",
        "--api-server-count 2",
        "vLLM built with patches/",
        "Three classes",
        "Out of KV blocks",
        "KV spilled to the host",
        "Timeline",
        "Status page",
    ),
    "Requests": (
        "Chat completions",
        "Completions",
        "Responses",
        "Messages (Anthropic)",
        "Streaming",
        "n > 1",
        "Logprobs",
        "Prompt logprobs",
        "Seeded sampling",
        "Penalties",
        "Logit bias",
        "Allowed and forbidden tokens",
        "Thinking budgets",
        "Logits processors of the user",
        "Stop strings",
        "min_tokens",
        "Structured output: JSON schema",
        "Structured output: regex",
        "Structured output: choice",
        "Tool calls",
        "LoRA adapters",
        "Prompt embeddings",
        "Beam search",
        "Generative scoring",
        "service_tier",
        "Tenants",
        "Aborts",
        "Calls of operators",
        "vllm run-batch",
        "python -m vllm_qllm.batch",
        "LLM.generate and LLM.chat",
    ),
    "Faults": (
        "Worker killed",
        "EngineCore killed",
        "TP rank killed",
        "EngineCore stands still",
        "SIGTERM drains",
        "Clients that vanish",
        "Full disk",
        "Clock jumps",
    ),
    "Refused at start, with the reason": (
        "Pipeline parallelism (refused)",
        "Data parallelism (refused)",
        "KV connectors (refused)",
        "Model runner V2 (refused)",
        "Asynchronous scheduling (refused)",
        "Embeddings models (refused)",
        "Another scheduler class (refused)",
        "Rust frontend (refused)",
        "gRPC server (refused)",
        "Ray executor (refused)",
    ),
    "Between steps only, with a warning": (
        "Expert parallelism (between steps)",
        "Speculative decoding (between steps)",
        "Devices other than CPU and one CUDA GPU (between steps)",
    ),
}
KNOWN = {name for names in SECTIONS.values() for name in names}

# What is refused is refused in every mode, and what falls back is never suspended.
WITHOUT_MODES = ("Refused at start, with the reason", "Between steps only, with a warning")

HEADER = """\
# Compatibility

Made from the markers of the tests that passed (`make compatibility`); a test run that finds this
page out of date fails. These tests run on the CPU; [gpu.md](gpu.md) says what has run on a GPU.

"yes": a test compares the outputs, or checks the behaviour, in that mode. "suspended": in one of
these tests steps that hold such requests are suspended, and it checks that they were. A dash: no
test, which says nothing about whether it works.
"""


@dataclass
class Line:
    """What tests show of one feature."""

    modes: set[str] = field(default_factory=set)
    suspended: bool = False


# What a test covers: feature, mode, and whether with suspended steps.
Claim = tuple[str, str, bool]


def claims_of(item: pytest.Item) -> list[Claim]:
    """What the markers of a test say.

    Raises:
        pytest.UsageError: a marker with a feature or mode that is not known.
    """
    claims = []
    for marker in item.iter_markers("covers"):
        feature, mode = marker.args
        if feature not in KNOWN or mode not in MODES:
            raise pytest.UsageError(
                f"{item.nodeid} covers {feature!r} in {mode!r}; known are the features in "
                f"{Path(__file__).name} and the modes {', '.join(MODES)}"
            )
        claims.append((feature, mode, bool(marker.kwargs.get("suspended", False))))
    return claims


def lines_of(claims: Iterable[Claim]) -> dict[str, Line]:
    """What these claims come to, by feature."""
    lines: dict[str, Line] = {}
    for feature, mode, suspended in claims:
        line = lines.setdefault(feature, Line())
        line.modes.add(mode)
        line.suspended |= suspended
    return lines


def page(lines: dict[str, Line]) -> str:
    """The whole page; features that no test covers are left out."""
    out = [HEADER]
    for section, names in SECTIONS.items():
        if not any(name in lines for name in names):
            continue
        by_mode = section not in WITHOUT_MODES
        out.append(f"## {section}\n")
        if by_mode:
            out += ["| | eager | compiled | tp 2 | suspended |", "|---|---|---|---|---|"]
        for name in (name for name in names if name in lines):
            line = lines[name]
            if by_mode:
                told = [*(mode in line.modes for mode in MODES), line.suspended]
                cells = " | ".join("yes" if shown else "-" for shown in told)
                out.append(f"| {name} | {cells} |")
            else:
                out.append(f"- {name.rpartition(' (')[0]}")
        out.append("")
    return "\n".join(out)


class Compatibility:
    """Collects the tests that passed and, after a whole run, compares or writes the page.

    With ``pytest -n`` the tests run in other processes: what they cover comes with their reports.
    """

    def __init__(self, write: bool) -> None:
        self._write = write
        self._claims: dict[str, list[Claim]] = {}
        self._failed: set[str] = set()
        # Of tests that were skipped or left out: whether they would pass is not known.
        self._open: list[Claim] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Let the reports of each test say what it covers; a wrong marker ends the run at once."""
        for item in items:
            item.user_properties += [("covers", claim) for claim in claims_of(item)]

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """What is left out says nothing."""
        for item in items:
            self._open += claims_of(item)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """The same of pytest-xdist: its processes choose, this one only hears of what they run."""
        self._open += map(tuple, getattr(node, "workeroutput", {}).get("open claims", ()))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test counts when nothing of it failed or was skipped."""
        claims: list[Claim] = [tuple(v) for name, v in report.user_properties if name == "covers"]
        self._claims[report.nodeid] = claims
        if not report.passed:
            self._failed.add(report.nodeid)
        if report.skipped:
            self._open += claims

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the page, or fail the run when the page says something else."""
        if hasattr(session.config, "workerinput"):  # for `pytest_testnodedown`
            session.config.workeroutput["open claims"] = self._open
        if exitstatus != pytest.ExitCode.OK or session.shouldstop or not _is_whole(session.config):
            return
        passed = [c for name, c in self._claims.items() if name not in self._failed]
        shown = list(itertools.chain.from_iterable(passed))
        made = page(lines_of(shown))
        if self._write:
            PAGE.write_text(made)
        elif not PAGE.exists() or PAGE.read_text() not in (
            made,
            page(lines_of(shown + self._open)),
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            reporter.write_line(f"{PAGE.name} is out of date: make compatibility", red=True)


def _is_whole(config: pytest.Config) -> bool:
    """Whether all tests run, in this process or others; a selection says nothing about the page."""
    if hasattr(config, "workerinput"):  # of pytest-xdist: this process runs a part of them
        return False
    option = config.option
    selected = option.keyword or option.markexpr not in ("", USUAL) or option.collectonly
    selected = selected or getattr(option, "lf", False)
    return config.args == config.getini("testpaths") and not selected
