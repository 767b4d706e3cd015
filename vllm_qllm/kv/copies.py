# SPDX-License-Identifier: Apache-2.0
"""What a scheduler asks of its workers for one step, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorMetadata,
    KVConnectorWorkerMetadata,
)


@dataclass
class Copies(KVConnectorMetadata):
    """Blocks that a step copies: first ``offloads``, then ``partial``, then ``full``.

    Attributes:
        offloads: (KV block, host slot) of each block to copy to the host, before anything is
            computed.
        partial: (host slot, KV block) of each block to copy from the host that the step itself goes
            on to fill, before anything is computed.
        full: the same of blocks that it does not write; of each layer before its attention, which
            alone reads them.
    """

    offloads: list[tuple[int, int]] = field(default_factory=list)
    partial: list[tuple[int, int]] = field(default_factory=list)
    full: list[tuple[int, int]] = field(default_factory=list)

    @property
    def restores(self) -> list[tuple[int, int]]:
        """(host slot, KV block) of each block to copy from the host."""
        return self.partial + self.full

    def follow(self, unused: Copies) -> None:
        """Prepend the copies of a step that will not run."""
        assert not unused.restores, "a step that restores a request computes something"
        self.offloads = unused.offloads + self.offloads


@dataclass
class CopyReport(KVConnectorWorkerMetadata):
    """What one step's copies took, over all workers.

    Attributes:
        offloaded: blocks copied to the host.
        restored: blocks copied from the host.
        offload_seconds: for all of ``offloaded``; the slowest worker's.
        restore_seconds: for all of ``restored``; the slowest worker's.
        errors: copies to the host that failed; vLLM has a place of its own for those from it.
    """

    offloaded: int = 0
    restored: int = 0
    offload_seconds: float = 0.0
    restore_seconds: float = 0.0
    errors: int = 0

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        """The report of two workers that did the same copies, each of its own part."""
        assert isinstance(other, CopyReport)
        return CopyReport(
            self.offloaded,
            self.restored,
            max(self.offload_seconds, other.offload_seconds),
            max(self.restore_seconds, other.restore_seconds),
            self.errors + other.errors,
        )
