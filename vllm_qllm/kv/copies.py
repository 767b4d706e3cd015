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
    """Blocks that a step copies: first all ``out``, then ``partial``, then ``full``.

    Attributes:
        out: (KV block, host slot) of each block to copy to the host, before anything is computed.
        partial: (host slot, KV block) of each block to copy from the host that the step itself goes
            on to fill, before anything is computed.
        full: the same of blocks that it does not write; of each layer before its attention, which
            alone reads them.
    """

    out: list[tuple[int, int]] = field(default_factory=list)
    partial: list[tuple[int, int]] = field(default_factory=list)
    full: list[tuple[int, int]] = field(default_factory=list)

    @property
    def back(self) -> list[tuple[int, int]]:
        """(host slot, KV block) of each block to copy from the host."""
        return self.partial + self.full

    def follow(self, unused: Copies) -> None:
        """Prepend the copies of a step that will not run."""
        assert not unused.back, "a step that restores a request computes something"
        self.out = unused.out + self.out


@dataclass
class CopyReport(KVConnectorWorkerMetadata):
    """What one step's copies took, over all workers.

    Attributes:
        out: blocks copied to the host.
        back: blocks copied from the host.
        out_seconds: for all of ``out``; the slowest worker's.
        back_seconds: for all of ``back``; the slowest worker's.
        errors: copies to the host that failed; vLLM has a place of its own for those from it.
    """

    out: int = 0
    back: int = 0
    out_seconds: float = 0.0
    back_seconds: float = 0.0
    errors: int = 0

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        """The report of two workers that did the same copies, each of its own part."""
        assert isinstance(other, CopyReport)
        return CopyReport(
            self.out,
            self.back,
            max(self.out_seconds, other.out_seconds),
            max(self.back_seconds, other.back_seconds),
            self.errors + other.errors,
        )
