# SPDX-License-Identifier: Apache-2.0
"""What changes in a copy of vLLM is found and named with its reason; what means nothing is not."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.conftest import file_of
from vllm_qllm.contract.moved import (
    BODY_CHANGED,
    DECLARATION,
    GONE,
    PARAMETERS,
    Comparison,
    Difference,
)
from vllm_qllm.contract.uses import ALL

Change = Callable[[str, str, str], Path]
SCHEDULER, CORE = "vllm.v1.core.sched.scheduler", "vllm.v1.engine.core"
REQUEST = "vllm.v1.request"


def differences(root: Path, module: str = "") -> list[Difference]:
    """Those of the symbols of one module, or of all."""
    of = [d for d in ALL if d.symbol.startswith(f"{module}:")] if module else ALL
    return list(Comparison(root).differences(of))


# module, what is replaced by what, and the symbol of that module that it changes
CHANGES = {
    "a statement": (
        SCHEDULER,
        "self.reset_preempted_req_ids.add(request.request_id)",
        "pass",
        "Scheduler._preempt_request",
        BODY_CHANGED,
    ),
    "an operator": (
        "vllm.v1.core.kv_cache_manager",
        "if required_blocks > available_blocks:",
        "if required_blocks >= available_blocks:",
        "KVCacheManager.allocate_slots",
        BODY_CHANGED,
    ),
    "an inner function": (
        CORE,
        "(client_idx, EngineCoreOutputs(utility_output=out))",
        "(0, EngineCoreOutputs(utility_output=out))",
        "EngineCoreProc._handle_client_request",
        BODY_CHANGED,
    ),
    "a decorator": (
        SCHEDULER,
        "    @staticmethod\n    def _is_blocked_waiting_status",
        "    def _is_blocked_waiting_status",
        "Scheduler._is_blocked_waiting_status",
        BODY_CHANGED,
    ),
    "a field": (
        "vllm.v1.core.sched.output",
        "    total_num_scheduled_tokens: int\n",
        "    total_num_scheduled_tokens: int\n    another: int\n",
        "SchedulerOutput",
        BODY_CHANGED,
    ),
    "a new parameter": (
        CORE,
        "def _process_engine_step(self) -> bool:",
        "def _process_engine_step(self, *, soon=True) -> bool:",
        "EngineCoreProc._process_engine_step",
        PARAMETERS,
    ),
    "a default": (
        "vllm.logger",
        "def init_logger(name: str)",
        "def init_logger(name: str = '')",
        "init_logger",
        PARAMETERS,
    ),
    "a method": (
        "vllm.v1.core.block_pool",
        "def get_num_free_blocks(",
        "def count_free_blocks(",
        "BlockPool.get_num_free_blocks",
        GONE,
    ),
    "an attribute": (
        "vllm.v1.core.kv_cache_manager",
        "self.watermark_blocks = int",
        "self.watermark = int",
        "KVCacheManager.watermark_blocks",
        GONE,
    ),
    "a type": (
        REQUEST,
        "self.arrival_time = ",
        "self.arrival_time: datetime = ",
        "Request.arrival_time",
        DECLARATION,
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_is_named_with_its_reason(change: Change, case: str) -> None:
    module, old, new, name, what = CHANGES[case]
    found = {d.dependency.symbol: d for d in differences(change(module, old, new), module)}
    difference = found[f"{module}:{name}"]
    assert difference.what == what
    reason = next(d.why for d in ALL if d.symbol == f"{module}:{name}")
    assert str(difference).endswith(reason)
    assert len(found) == 1


def test_a_new_parameter_is_shown(change: Change) -> None:
    root = change(
        CORE, "def _process_engine_step(self) -> bool:", "def _process_engine_step(self, a=1):"
    )
    assert [d.detail for d in differences(root, CORE)] == ["now with a=1"]


def test_a_module_that_is_gone_takes_its_symbols_with_it(copied: Path) -> None:
    module = "vllm.v1.core.block_pool"
    file_of(copied, module).unlink()
    found = differences(copied, module)
    there = [d.symbol for d in ALL if d.symbol.startswith(f"{module}:")]
    assert len(there) > 1 and [d.dependency.symbol for d in found] == there
    assert {d.what for d in found} == {GONE}


class _WithoutDocstrings(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.arg):
            node.annotation = None
        return node


def test_formatting_comments_docstrings_and_annotations_mean_nothing(copied: Path) -> None:
    for module in {d.symbol.partition(":")[0] for d in ALL}:
        file = file_of(copied, module)
        before = file.read_text()
        file.write_text(ast.unparse(_WithoutDocstrings().visit(ast.parse(before))))
        assert file.read_text() != before
    assert differences(copied) == []


def test_the_decorator_of_the_source_patches_means_nothing(change: Change) -> None:
    loop = "    def worker_busy_loop(self):"
    decorator = '    @seam("vllm.v1.executor.multiproc_executor.WorkerProc.worker_busy_loop")\n'
    module = "vllm.v1.executor.multiproc_executor"
    assert differences(change(module, loop, decorator + loop), module) == []
