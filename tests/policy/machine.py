# SPDX-License-Identifier: Apache-2.0
"""A machine in virtual time that runs what a policy says, with every class always having work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vllm_qllm.config import PriorityConfig
from vllm_qllm.policy import ClassView, EngineView, Policy, Resume, Service, SuspendedView

PROMPTS, DECODES = (True, False), (False, True)


@dataclass(frozen=True)
class Load:
    """The endless work of one class.

    Attributes:
        step: seconds that each of its steps takes.
        spacing: seconds between two yield points of it; None: it cannot be suspended.
        riding: the share of a more urgent class's step that is service of its decodes.
        kinds: whether it has prompts, and whether it has decodes.
        begins: when it has work for the first time.
    """

    step: float
    spacing: float | None = None
    riding: float = 0.0
    kinds: tuple[bool, bool] = PROMPTS
    begins: float = 0.0


@dataclass
class Part:
    """The machine worked for one class from ``start`` to ``end``."""

    level: int
    start: float
    end: float


@dataclass
class Begun:
    """A step that is suspended: it has run for ``ran`` seconds."""

    level: int
    ran: float
    since: float


def run(
    policy: Policy,
    config: PriorityConfig,
    loads: Sequence[Load],
    until: float,
    arrive: float | None = None,
    overhead: float = 0.0,
) -> list[Part]:
    """Who had the machine when.

    Args:
        policy: decides.
        config: with its classes.
        loads: one a class, most urgent first. The first one's steps are never suspended.
        until: seconds to simulate.
        arrive: seconds between arrivals of the most urgent class, each of which suspends what
            may be suspended and is not protected; None: they do not suspend.
        overhead: seconds between two steps.
    """
    service = Service(config.classes)
    now, parts = 0.0, []
    stack: list[Begun] = []
    while now < until:
        work = [x.kinds if x.begins <= now else (False, False) for x in loads]
        if not any(map(any, work)):
            now = min(x.begins for x in loads)
            continue
        service.note(work, now)
        views = []
        for level, (prompts, decodes) in enumerate(work):
            starved, owed = service.starved(level), service.owed(level)
            views.append(ClassView(level, int(prompts), 0, int(decodes), starved, owed))
        seen = EngineView(
            tuple(views), tuple(SuspendedView(b.level, now - b.since, b.ran, 1) for b in stack)
        )
        plan = policy.plan(seen)
        if isinstance(plan, Resume):
            step, suspendable = stack.pop(), True
        else:
            step, suspendable = Begun(plan.level, 0.0, 0.0), plan.suspendable
        load = loads[step.level]
        rides = {r: x.riding for r, x in enumerate(loads) if x.riding and r > step.level}
        service.started(step.level, now, rides if not plan.protected else {}, plan.protected)
        left = load.step - step.ran
        lasts = left
        if suspendable and step.level and load.spacing is not None:
            stops = [] if plan.budget is None else [plan.budget]
            if arrive is not None and not plan.protected:
                stops.append(arrive - now % arrive)
            # It stops at the first yield point after that, and passes one in any case.
            if stops:
                yield_point = math.floor((step.ran + min(stops)) / load.spacing + 1e-9) + 1
                lasts = min(left, yield_point * load.spacing - step.ran)
        parts.append(Part(step.level, now, now + lasts))
        now += lasts
        service.ended(now)
        if left - lasts > 1e-9:
            stack.append(Begun(step.level, step.ran + lasts, now))
        now += overhead
    return parts


def longest_wait(parts: list[Part], level: int) -> float:
    """Longest time between two parts of one class."""
    ends = [0.0] + [p.end for p in parts if p.level == level]
    starts = [p.start for p in parts if p.level == level] + [parts[-1].end]
    return max(start - end for end, start in zip(ends, starts, strict=True))


def served(parts: list[Part], level: int) -> float:
    """Seconds that a class had the machine."""
    return sum(p.end - p.start for p in parts if p.level == level)


def share(parts: list[Part], level: int) -> float:
    """Of the machine's time."""
    return served(parts, level) / parts[-1].end
