# SPDX-License-Identifier: Apache-2.0
"""vLLM's interface for KV that comes from elsewhere, here from the host.

vLLM makes one of these for its scheduler and one for each worker. Steps nest, and so do the
calls of a worker: what belongs to a step is on a stack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)
from vllm.logger import init_logger
from vllm.model_executor.layers.attention.attention import Attention
from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.metrics.cache_hit_source import CacheHitSource
from vllm.v1.outputs import KVConnectorOutput
from vllm.v1.request import Request

from vllm_qllm.config import ConfigError, PriorityConfig, carried
from vllm_qllm.kv.copies import Copies, CopyReport
from vllm_qllm.kv.mover import Mover
from vllm_qllm.kv.spill import Spill

logger = init_logger("vllm.qllm")


@dataclass
class StepCopies:
    """The copies of a step that has begun.

    Attributes:
        report: what they took.
        failed: KV blocks that could not be restored.
        due: layers that still have to copy their part of ``copies.full``.
    """

    copies: Copies
    report: CopyReport
    failed: set[int] = field(default_factory=set)
    due: set[str] = field(default_factory=set)


class SpillConnector(KVConnectorBase_V1, SupportsHMA):
    """Connects vLLM's scheduler with :class:`Spill` and its workers with :class:`Mover`.

    Attributes:
        spill: of the scheduler's connector; without slots where nothing can be spilled.
    """

    _cache_hit_source = CacheHitSource.HOST

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        config = PriorityConfig.from_dict(carried(vllm_config) or {})
        block_bytes = kv_cache_config.kv_cache_tensors[0].size // kv_cache_config.num_blocks
        if config.spill_bytes < block_bytes:
            raise ConfigError(
                f"priority config: spill_bytes is {config.spill_bytes}; allowed: 0, or at least "
                f"one KV block, which has {block_bytes} bytes with this model"
            )
        self._slots = config.spill_bytes // block_bytes
        groups = kv_cache_config.kv_cache_groups
        if len(groups) > 1 or not isinstance(groups[0].kv_cache_spec, FullAttentionSpec):
            # Behind a window there are no blocks, and those of several groups hold other tokens.
            self._slots = 0
            if role == KVConnectorRole.SCHEDULER:
                logger.warning(
                    "spill_bytes is ignored, preempted requests are computed again: only KV of "
                    "full attention is spilled."
                )
        self._directory = Path(config.spill_path) if config.spill_path else None
        self._blocks = kv_cache_config.num_blocks
        self.spill = Spill(
            self._slots,
            vllm_config.cache_config.block_size,
            block_bytes,
            by_layer=self._directory is None and vllm_config.device_config.device_type == "cpu",
        )
        self._mover: Mover | None = None
        self._layers = vllm_config.compilation_config.static_forward_context
        # Those that ask for their part of what a step restores, before they read it.
        self._asking: frozenset[str] = frozenset()
        self._steps: list[StepCopies] = []
        self._report = CopyReport()  # of the step that begins
        self._ended: StepCopies | None = None  # the last one

    @property
    def requires_kv_delivery(self) -> bool:
        """No: a request that finishes needs no blocks any more."""
        return False

    # -- scheduler ---------------------------------------------------------------------------

    def get_num_new_matched_tokens(
        self, request: Request, num_computed_tokens: int
    ) -> tuple[int, bool]:
        """Tokens to restore beyond those of the prefix cache: before their layer reads them."""
        return max(0, self.spill.tokens(request.request_id) - num_computed_tokens), False

    def update_state_after_alloc(
        self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int
    ) -> None:
        """Restore what vLLM has found room for."""
        ids = blocks.get_block_ids()
        start = self.spill.tokens(request.request_id) - num_external_tokens
        self.spill.admit(request.request_id, ids[0], start, num_external_tokens)

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> KVConnectorMetadata:
        """The copies of a step."""
        return self.spill.take_copies()

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        """Learn what a step's copies took, and which failed."""
        report = connector_output.kv_connector_worker_meta
        assert report is None or isinstance(report, CopyReport)
        self.spill.completed(report, connector_output.invalid_block_ids)

    def request_finished_all_groups(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """Forget a request; its blocks may go at once."""
        self.spill.forget(request.request_id)
        return False, None

    def reset_cache(self) -> bool:
        """Nothing of a finished request is kept."""
        return True

    # -- worker ------------------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Make the host slots."""
        if self._slots:
            self._mover = Mover(kv_caches, self._blocks, self._slots, self._directory)
            attention = {n for n, layer in self._layers.items() if isinstance(layer, Attention)}
            self._asking = self._mover.served & attention

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        """Copy out the blocks that the step, which begins now, is going to use."""
        assert isinstance(kv_connector_metadata, Copies)
        self._report = CopyReport()
        if self._mover:
            self._mover.offload(kv_connector_metadata.offloads, self._report)

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        """Begin a step, on top of those that are suspended."""
        assert isinstance(connector_metadata, Copies)
        self._steps.append(StepCopies(connector_metadata, self._report))
        super().bind_connector_metadata(connector_metadata)

    def clear_connector_metadata(self) -> None:
        """End a step; the one below goes on."""
        self._ended = self._steps.pop()
        super().clear_connector_metadata()
        if self._steps:
            super().bind_connector_metadata(self._steps[-1].copies)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Copy back what the step's requests computed before they lost it.

        vLLM calls this before the forward pass of a step that restores anything. What layers can
        ask for is left to them: between two of them the step can be suspended.
        """
        step = self._steps[-1]
        if self._mover is None:
            return
        copies, report = step.copies, step.report
        if not self._asking:
            step.failed |= self._mover.restore(copies.restores, report)
            return
        step.failed |= self._mover.restore(copies.partial, report)
        if copies.full:
            report.restored += len(copies.full)
            step.due.update(self._asking)
            for name in self._mover.layers - self._asking:
                self._mover.restore_layer(name, copies.full, report)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Copy back the part of a layer that is about to read it, if it is the first to."""
        step = self._steps[-1]
        if layer_name in step.due:
            assert self._mover is not None
            step.due.remove(layer_name)
            self._mover.restore_layer(layer_name, step.copies.full, step.report)

    def wait_for_save(self) -> None:
        """Copy back the part of every layer that this step did not run."""
        for name in sorted(self._steps[-1].due):
            self.wait_for_layer_load(name)

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Blocks of the step that ends which could not be restored."""
        return self._steps[-1].failed

    def build_connector_worker_meta(self) -> CopyReport | None:
        """What the copies of the step that ends took, those of steps nested in it left out."""
        return self._steps[-1].report if self._mover else None

    def output_of_ended_step(self) -> KVConnectorOutput:
        """What vLLM would have handed on of the last step, had it not been given up."""
        ended = self._ended
        assert ended is not None
        return KVConnectorOutput(
            invalid_block_ids=ended.failed,
            kv_connector_worker_meta=ended.report if self._mover else None,
        )

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **_: Any) -> None:
        """Blocks are copied to the host between steps, not while they are written."""

    def shutdown(self) -> None:
        """Give the host slots back."""
        if self._mover:
            self._mover.close()
