# SPDX-License-Identifier: Apache-2.0
"""What is to be run, in which order, and what need not be run again."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import systems
from benchmarks.load.drive import Times
from benchmarks.load.traces import Traces
from benchmarks.measurement.matrix import Cell, Setup, cells, finished
from benchmarks.measurement.options import QUICK
from benchmarks.measurement.progress import Progress
from benchmarks.record.record import failed, load, path_of, save
from benchmarks.run import main, run
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.azure import CODE, CONVERSATION

FACTS = {"cpu": "c", "source": "s", "commit": "one"}
SETUP = Setup(Path("models/tiny"))


def cell(scenario: str = "mix", system: str = "strict") -> Cell:
    return cells([SCENARIOS[scenario]], [system])[0]


def test_every_scenario_names_systems_that_exist_and_asks_for_requests(tmp_path: Path) -> None:
    for scenario in SCENARIOS.values():
        assert scenario.variants
        assert all(index < len(scenario.variants) for index in scenario.quick)
        for name in scenario.systems:
            systems.find(name)
    assert set(SCENARIOS["mix"].systems) == set(systems.SYSTEMS) - {
        *("priority-8192", "strict-8192", "strict-spill")
    }
    with pytest.raises(ValueError, match="no system named 'x'; there are: ls-alone"):
        systems.find("x")


def test_rounds_go_through_all_systems_in_turn() -> None:
    names = [c.name for c in cells([SCENARIOS["mix"]], ["fcfs", "strict"], rounds=2)]
    assert names == ["fcfs", "strict", "fcfs", "strict"]


def test_every_run_has_a_file_of_its_own() -> None:
    every = cells(list(SCENARIOS.values()), rounds=2)
    paths = {path_of(Path(), c.blank(SETUP, FACTS)) for c in every}
    assert len(paths) == len(every) > 100


def test_a_quick_run_starts_each_server_once() -> None:
    chosen = cells(list(SCENARIOS.values()), QUICK, quick=True)
    starts = [c.system.arguments for c in chosen]
    changes = sum(a != b for a, b in pairwise(starts))
    assert changes + 1 == len(set(starts)) == 2
    assert {c.scenario.name for c in chosen} == set(SCENARIOS)


def test_scenarios_that_share_servers_do_the_same_runs_with_fewer_starts() -> None:
    some = [SCENARIOS[name] for name in ("mix", "qllm", "conserve", "kv-pressure")]

    def starts(runs: list[Cell]) -> int:
        servers = [(c.scenario.arguments, c.system.arguments) for c in runs]
        return 1 + sum(a != b for a, b in pairwise(servers))

    alone, shared = cells(some), cells(some, share=3)
    assert sorted(map(str, shared)) == sorted(map(str, alone))
    assert starts(shared) < starts(alone)
    ends = shared[-len(cells(some[3:])) :]
    assert [c.scenario for c in ends] == [some[3]] * len(ends)  # the fourth by itself
    first = [c.scenario.name for c in shared if c.name == "strict"][:3]
    assert first == ["mix", "qllm", "qllm"]


def test_the_commit_alone_makes_no_other_run_but_source_seed_load_and_system_do() -> None:
    key = cell().key(SETUP, FACTS)
    assert cell().key(SETUP, FACTS | {"commit": "two"}) == key
    others = [
        cell().key(SETUP, FACTS | {"source": "t"}),
        cell().key(replace(SETUP, seed=1), FACTS),
        cell().key(replace(SETUP, model=Path("models/other")), FACTS),
        cell().key(replace(SETUP, common=("--enforce-eager",)), FACTS),
        cell().key(replace(SETUP, times=Times(1.0, 2.0, 3.0)), FACTS),
        cell(system="step").key(SETUP, FACTS),
        cell("conserve").key(SETUP, FACTS),
    ]
    assert len({key, *others}) == len(others) + 1


def test_another_trace_of_the_same_name_makes_another_run(tmp_path: Path) -> None:
    setup = replace(SETUP, files=Traces(tmp_path))
    missing = cell("azure-code").key(setup, FACTS)
    for name in (CODE, CONVERSATION):
        (tmp_path / name).write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    assert cell("azure-code").key(setup, FACTS) != missing


def test_only_a_good_run_with_the_same_key_is_finished(tmp_path: Path) -> None:
    run = cell().blank(SETUP, FACTS)
    path = path_of(tmp_path, run)
    assert not finished(path, run.key)
    save(run, tmp_path)
    assert finished(path, run.key)
    assert not finished(path, "other")
    save(failed(run, "cause"), tmp_path)
    assert not finished(path, run.key)
    path.write_text('{"format": 1, "scenario"')  # as if the disk had been full
    assert not finished(path, run.key)


def test_a_missing_trace_fails_its_run_before_a_server_is_started(tmp_path: Path) -> None:
    setup = replace(SETUP, files=Traces(tmp_path))  # and there is no such model
    (path,) = run([cell("azure-code")], setup, tmp_path, Progress(), tmp_path / "logs")
    found = load(path)
    assert found.status == "failed"
    assert f"{CODE}: No such file" in (found.cause or "")
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "no scenario named 'nope'; there are: all, mix"),
        ([], "name a scenario: all, mix"),
        (["mix", "--systems", "nope"], "no system named 'nope'; there are: ls-alone"),
        (["mix", "--share", "0"], "--share is 0; it must be at least 1"),
        (["mix", "--rounds", "0"], "--rounds is 0; it must be at least 1"),
        (["mix", "--seconds", "-1"], "'-1' is not above 0"),
        (["mix", "--trace", "XX=a.csv"], "'XX=a.csv' is not LS=FILE or BE=FILE"),
        (["mix", "--url", "http://x/v1"], "--url serves one system"),
    ],
)
def test_options_that_make_no_sense_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
