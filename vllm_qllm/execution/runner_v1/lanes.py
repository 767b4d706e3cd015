# SPDX-License-Identifier: Apache-2.0
"""Lanes: one set of per-step buffers of the model runner for each step in flight.

Model runner V1 keeps a step's inputs in buffers that live as long as the runner, its
``InputBatch`` describes the requests of the last step, and the builders of attention metadata
have buffers, too. A nested step must not touch those of the suspended one, so each lane has its
own. ``runner.requests`` is shared: it is the truth about
every request, from which a batch row can always be made again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.utils.platform_utils import is_pin_memory_available
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.sample.logits_processor import build_logitsprocs
from vllm.v1.utils import CpuGpuBuffer

from vllm_qllm.execution.runner_v1.row_state import remove_row

# State that ``execute_model`` leaves for ``sample_tokens`` of the same step.
EPHEMERAL = ("execute_model_state", "kv_connector_output")


def _copy_buffer(buffer: CpuGpuBuffer, device: torch.device) -> CpuGpuBuffer:
    host = buffer.cpu
    copy = CpuGpuBuffer(
        *host.shape,
        dtype=host.dtype,
        device=device,
        pin_memory=host.is_pinned(),
        with_numpy=hasattr(buffer, "np"),
    )
    copy.cpu.copy_(host)
    if buffer.gpu is host:
        copy.gpu = copy.cpu  # the CPU runner uses one tensor for both sides
    else:
        copy.gpu.copy_(buffer.gpu)
    return copy


def _new_batch(runner: Any) -> Any:
    """An empty ``InputBatch`` of the runner's own making, with logits processors of its own."""
    current, geometry = runner.input_batch, runner._init_block_sizes
    try:
        # The runner builds a batch only when the block sizes differ from those it knows.
        runner._init_block_sizes = None
        runner.may_reinitialize_input_batch(runner.kv_cache_config)
        batch = runner.input_batch
    finally:
        runner.input_batch, runner._init_block_sizes = current, geometry
    batch.logitsprocs = build_logitsprocs(
        runner.vllm_config,
        runner.device,
        is_pin_memory_available(),
        runner.is_pooling_model,
        tuple(runner.model_config.logits_processors or ()),
    )
    return batch


def _new_attention_groups(runner: Any) -> Any:
    """The runner's attention groups with metadata builders of their own.

    A builder may keep what a forward pass reads in buffers that live as long as it does, as
    FlashAttention does when there are full CUDA graphs.
    """
    current = runner.attn_groups
    try:
        runner.attn_groups = [
            [replace(group, metadata_builders=[]) for group in groups] for groups in current
        ]
        with set_current_vllm_config(runner.vllm_config):
            runner.initialize_metadata_builders(runner.kv_cache_config, runner._kernel_block_sizes)
        return runner.attn_groups
    finally:
        runner.attn_groups = current


class Lanes:
    """The lanes of one model runner; lane 0 is the set that the runner was made with."""

    def __init__(self, runner: Any, count: int) -> None:
        self._runner = runner
        names = [
            name
            for name, value in vars(runner).items()
            if isinstance(value, (CpuGpuBuffer, torch.Tensor))
        ]
        self._names = (*names, "input_batch", "attn_groups", *EPHEMERAL)
        self._lanes = [self._current()] + [self._make(names) for _ in range(1, count)]
        self.active = 0

    def _current(self) -> dict[str, Any]:
        return {name: getattr(self._runner, name) for name in self._names}

    def _make(self, names: list[str]) -> dict[str, Any]:
        lane: dict[str, Any] = dict.fromkeys(EPHEMERAL)
        for name in names:
            value = getattr(self._runner, name)
            if isinstance(value, CpuGpuBuffer):
                lane[name] = _copy_buffer(value, self._runner.device)
            else:
                copy = value.clone()
                lane[name] = copy.pin_memory() if value.is_pinned() else copy
        lane["input_batch"] = _new_batch(self._runner)
        lane["attn_groups"] = _new_attention_groups(self._runner)
        return lane

    def activate(self, lane: int) -> None:
        """Make ``lane`` the runner's own buffers; those of the active lane are kept."""
        if lane == self.active:
            return
        self._lanes[self.active] = self._current()
        vars(self._runner).update(self._lanes[lane])
        self.active = lane

    def claim(self, lane: int, output: SchedulerOutput) -> None:
        """Activate ``lane`` for a new step and drop its requests' rows from all other lanes.

        A row left in another lane would lack the tokens that this step adds; one of a request
        that has ended would be taken for that of a later one with the same id. No suspended step
        is touched: its requests are neither scheduled again nor finished before it ends.
        """
        self.activate(lane)
        for number, other in enumerate(self._lanes):
            if number == lane:
                continue
            for request_id in (*output.num_scheduled_tokens, *output.finished_req_ids):
                remove_row(self._runner, other["input_batch"], request_id)

    def forget(self, output: SchedulerOutput) -> None:
        """Drop the rows of the active lane's step, which has been given up.

        vLLM tells logits processors of a step before its forward pass. One that counts steps
        would be ahead of the tokens; told of the row anew, it starts from them.
        """
        for request_id in output.num_scheduled_tokens:
            remove_row(self._runner, self._runner.input_batch, request_id)
