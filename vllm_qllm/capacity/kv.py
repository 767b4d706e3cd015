# SPDX-License-Identifier: Apache-2.0
"""KV blocks of one replica, counted; prefix caching is not modelled."""

from __future__ import annotations

from vllm_qllm.capacity.request import Request


class Blocks:
    """``total`` blocks of ``size`` tokens, and how many are free."""

    __slots__ = ("free", "size", "total")

    def __init__(self, total: int, size: int) -> None:
        self.total = self.free = total
        self.size = size

    def needed(self, request: Request, tokens: int) -> int:
        """Blocks that ``tokens`` of the request fill, less those it holds."""
        return max(0, -(-tokens // self.size) - request.blocks)

    def take(self, request: Request, tokens: int, reserve: int = 0) -> bool:
        """Give the request blocks for ``tokens``, leaving ``reserve`` free; False: too few."""
        need = -(-tokens // self.size) - request.blocks
        if need <= 0:
            return True
        if need > self.free - reserve:
            return False
        request.blocks += need
        self.free -= need
        return True

    def release(self, request: Request) -> None:
        """Take all of the request's blocks back."""
        self.free += request.blocks
        request.blocks = 0

    def steps(self, rows: list[Request], most: int) -> int:
        """How many decode steps, at most ``most``, all ``rows`` have blocks for."""
        if len(rows) * (most // self.size + 1) <= self.free:
            return most
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            if sum(self.needed(r, r.computed + middle) for r in rows) <= self.free:
                low = middle
            else:
                high = middle - 1
        return low
