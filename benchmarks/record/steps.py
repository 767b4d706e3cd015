# SPDX-License-Identifier: Apache-2.0
"""Which steps the engine ran, told from the times at which clients got their tokens.

Tokens of one step reach the clients together. Where a request got a token at two such moments in a
row, the engine was busy in between, and what it computed is known: everything that got a token,
unless another request may have been in its prefill. Only such steps are taken. It works for vLLM's
own schedulers and for loads of one class; under ``strict`` steps nest.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

from benchmarks.record.record import OK, Record, Request
from vllm_qllm.capacity.fit import Sample, pairs

# Tokens that come within this many seconds of each other are of one step; a step takes longer.
TOGETHER = 0.006


@dataclass
class Moment:
    """The end of a step: when, and which requests got which of their tokens."""

    at: float
    tokens: dict[int, int] = field(default_factory=dict)


def moments(requests: list[Request]) -> list[Moment]:
    """The ends of steps, in order; requests are named by their position in the list."""
    events = sorted(
        (at, who, which)
        for who, request in enumerate(requests)
        for which, at in enumerate(request.tokens)
    )
    found: list[Moment] = []
    last = float("-inf")
    for at, who, which in events:
        # A second token of the same request is of another step, however soon it comes.
        if at - last > TOGETHER or who in found[-1].tokens:
            found.append(Moment(at))
        found[-1].tokens[who] = which
        last = at
    return found


def busy_steps(record: Record, budget: int) -> list[Sample]:
    """The steps of a run whose content is certain; ``budget`` is that of the server in tokens."""
    requests = record.requests
    ends = moments(requests)
    # Who was in its prefill when: sent, and the first token.
    waiting = sorted((r.sent, r.first if r.first is not None else float("inf")) for r in requests)
    sent = [w[0] for w in waiting]
    samples = []
    for i in range(2, len(ends)):
        began, now = ends[i - 1], ends[i]
        decodes = {who: n for who, n in now.tokens.items() if n > 0}
        if not decodes or any(who not in began.tokens for who in decodes):
            continue
        firsts = [requests[who] for who, n in now.tokens.items() if n == 0]
        # Arrived during the step before, so that all of it was computed in this one.
        if any(r.sent < ends[i - 2].at for r in firsts):
            continue
        before = waiting[: bisect_left(sent, began.at)]
        if any(first > now.at + TOGETHER for _, first in before[-64:]):
            continue
        tokens = len(decodes) + sum(r.prompt for r in firsts)
        if tokens > budget:
            continue
        context = sum(requests[who].prompt + n for who, n in decodes.items())
        samples.append(
            Sample(tokens, context, sum(pairs(r.prompt) for r in firsts), now.at - began.at)
        )
    return samples


def lone_first_tokens(record: Record) -> list[Sample]:
    """Times to the first token of requests that found the server idle and stayed alone until then.

    A prompt of several steps is among them as a whole.
    """
    spans = sorted(
        ((r.sent, r.end if r.end is not None else record.ended, r) for r in record.requests),
        key=lambda span: span[:2],
    )
    samples = []
    for i, (sent, _, request) in enumerate(spans):
        if request.outcome != OK or request.first is None:
            continue
        earlier = max((end for _, end, _ in spans[max(0, i - 64) : i]), default=float("-inf"))
        following = spans[i + 1][0] if i + 1 < len(spans) else float("inf")
        if earlier <= sent and request.first < following:
            seconds = request.first - sent
            samples.append(Sample(request.prompt, 0, pairs(request.prompt), seconds))
    return samples


def chunked(sample: Sample, budget: int) -> Sample:
    """The mean step of a prefill that took several."""
    steps = -(-sample.tokens // budget)
    return Sample(sample.tokens // steps, 0, sample.pairs / steps, sample.seconds / steps)
