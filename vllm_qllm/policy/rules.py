# SPDX-License-Identifier: Apache-2.0
"""Rules that a policy's plan is carried out by. The engine and the capacity model share them."""

from __future__ import annotations

from typing import Any

from vllm_qllm.policy.base import EngineView, Plan, Resume, Run


class PlanError(RuntimeError):
    """A policy's answer cannot be carried out."""


def checked(plan: Any, view: EngineView, policy: str) -> Plan:
    """The answer of a policy, if it can be carried out.

    Args:
        plan: the answer.
        view: what it was asked about.
        policy: its name.

    Raises:
        PlanError: it cannot.
    """
    valid = isinstance(plan, (Run, Resume)) and (
        plan.budget is None or (isinstance(plan.budget, (int, float)) and plan.budget >= 0)
    )
    if isinstance(plan, Run):
        valid &= isinstance(plan.level, int) and 0 <= plan.level < view.limit
        valid &= isinstance(plan.riders, int) and plan.riders >= 0
    elif not view.suspended:
        valid = False
    if not valid:
        raise PlanError(
            f"priority policy {policy!r} answered {plan!r}; allowed: Run of a level below "
            f"{view.limit}" + (" or Resume" if view.suspended else "")
        )
    return plan  # type: ignore[no-any-return]


def riders_beside_prompts(
    tokens: int, budget: int, candidates: int, slowdown: float, each: int = 1
) -> int:
    """How many decodes may ride in a step that computes prompts.

    Its time goes with its tokens. A rider must not push prompt tokens out of it.

    Args:
        tokens: that the prompts have at least, within the budget.
        budget: tokens of a step.
        candidates: decodes that could ride.
        slowdown: ``ride_slowdown``.
        each: tokens of a rider: one, and as many as are speculated.
    """
    return min(candidates, (budget - tokens) // each, int(tokens * (slowdown - 1.0) / each))


def victim_order(
    level: int, output_tokens: int, nearly_done: float, price: float, arrived: float
) -> tuple[bool, int, float, float]:
    """A key by which requests lose their KV blocks, the first to go first.

    Those that are nearly done go last; then the least urgent go first, the cheapest of these, and
    the latest.

    Args:
        level: class of the request.
        output_tokens: that it has.
        nearly_done: output tokens from which on it is.
        price: seconds that taking one of its blocks costs.
        arrived: when it did, in seconds.
    """
    return output_tokens >= nearly_done, -level, price, -arrived
