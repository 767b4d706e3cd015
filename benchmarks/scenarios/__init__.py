# SPDX-License-Identifier: Apache-2.0
"""The scenarios, each in a file of its own. To add one, add a file and an entry."""

from benchmarks.scenarios import (
    azure,
    conserve,
    decoding,
    kv_pressure,
    long_prompts,
    mix,
    overload,
    qllm,
)
from benchmarks.scenarios.scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        mix.SCENARIO,
        qllm.SCENARIO,
        conserve.SCENARIO,
        azure.CONVERSATION_FIRST,
        azure.CODE_FIRST,
        decoding.SCENARIO,
        long_prompts.SCENARIO,
        overload.SCENARIO,
        kv_pressure.SCENARIO,
    )
}
