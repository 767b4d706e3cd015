# SPDX-License-Identifier: Apache-2.0
"""(4) Recorded traffic: Azure's conversations as LS and code completion as BE, and the reverse.

LS prompts and answers are scaled to an eighth, BE ones to a half (code) or a quarter, and time so
that two cores can serve the sum; lengths keep the trace's spread, arrivals its bursts. A minute
here is a few seconds of the trace; the seed chooses which.
"""

from benchmarks.load.streams import Replay
from benchmarks.record.record import BE, LS
from benchmarks.scenarios.scenario import Scenario, Variant

CONVERSATION = "AzureLLMInferenceTrace_conv.csv"
CODE = "AzureLLMInferenceTrace_code.csv"
SYSTEMS = ("ls-alone", "fcfs", "priority-2048", "priority-512", "strict")


def replay(kind: str, trace: str, rate: float, scale: float) -> Replay:
    """The trace at this mean rate, lengths times ``scale``."""
    return Replay(kind, trace, rate, scale, scale, longest_prompt=4096, longest_output=512)


CONVERSATION_FIRST = Scenario(
    name="azure-conversation",
    question="Conversations urgent, code completion best effort, as recorded?",
    variants=(Variant((replay(LS, CONVERSATION, 0.4, 1 / 8), replay(BE, CODE, 0.25, 1 / 2))),),
    systems=SYSTEMS,
)
CODE_FIRST = Scenario(
    name="azure-code",
    question="Code completion urgent, conversations best effort, as recorded?",
    variants=(Variant((replay(LS, CODE, 0.6, 1 / 8), replay(BE, CONVERSATION, 0.25, 1 / 4))),),
    systems=SYSTEMS,
)
