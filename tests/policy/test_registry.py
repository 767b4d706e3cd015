# SPDX-License-Identifier: Apache-2.0
"""Policies of one's own: a short class in any module; errors name the policy."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from vllm_qllm.config import ConfigError, PriorityConfig
from vllm_qllm.policy import (
    ClassView,
    EngineView,
    Plan,
    Resume,
    Run,
    StepPolicy,
    StrictPolicy,
    resolve,
)


class TakeTurns:
    """A user's policy: one step of each class in turn; who is suspended goes on after 0.1 s."""

    def __init__(self, config: PriorityConfig) -> None:
        self._turn = 0
        self._classes = len(config.classes)

    def plan(self, view: EngineView) -> Plan:
        limit = view.suspended.level if view.suspended else self._classes
        ready = [c.level for c in view.classes[:limit] if c.has_work]
        if view.suspended and (view.suspended.starved > 0.1 or not ready):
            return Resume(budget=0.5)
        self._turn += 1
        return Run(ready[self._turn % len(ready)])


def test_built_in() -> None:
    assert type(resolve(PriorityConfig(policy="strict"))) is StrictPolicy
    assert type(resolve(PriorityConfig(policy="step"))) is StepPolicy


def test_a_policy_of_under_fifty_lines_by_module_and_class() -> None:
    assert len(inspect.getsource(TakeTurns).splitlines()) < 50
    policy = resolve(PriorityConfig(policy=f"{__name__}:TakeTurns"))
    busy = EngineView((ClassView(0, 1, 0, 0), ClassView(1, 0, 0, 1)))
    assert {policy.plan(busy), policy.plan(busy)} == {Run(0), Run(1)}


BROKEN = {
    "syntax": "class Policy(:\n",
    "import": "import no_such_module_at_all\n",
    "raises": "raise RuntimeError('at import')\n",
    "no class": "",
    "not a class": "Policy = 3\n",
    "no constructor argument": "class Policy:\n    def plan(self, view): ...\n",
    "constructor raises": (
        "class Policy:\n"
        "    def __init__(self, config): raise ValueError('in __init__')\n"
        "    def plan(self, view): ...\n"
    ),
    "no plan": "class Policy:\n    def __init__(self, config): ...\n",
    "plan is no method": "class Policy:\n    plan = 1\n    def __init__(self, config): ...\n",
}


@pytest.mark.parametrize("what", BROKEN)
def test_errors_name_the_policy(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"user_policy_{list(BROKEN).index(what)}"
    (tmp_path / f"{module}.py").write_text(BROKEN[what])
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=f"{module}:Policy"):
        resolve(PriorityConfig(policy=f"{module}:Policy"))
    sys.modules.pop(module, None)


@pytest.mark.parametrize("name", ["no_such_module:Policy", "a..b:Policy", "json:NoSuchClass"])
def test_what_cannot_be_found_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        resolve(PriorityConfig(policy=name))
