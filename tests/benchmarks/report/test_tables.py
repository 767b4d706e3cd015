# SPDX-License-Identifier: Apache-2.0
"""Tables from records: medians, ratios to LS alone, the SLO, losses, failures, README's part."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.record.groups import Results
from benchmarks.record.record import Equality, Record, failed, save
from benchmarks.report.report import goodput, latency_table, render
from benchmarks.report.verdict import losses
from benchmarks.tables import BEGIN, END, main, put
from tests.benchmarks.records import record, request


def row(text: str, system: str) -> list[str]:
    """The cells of a system's first row."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {system} ")]
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def waits(system: str, *seconds: float | None, **more: object) -> Record:
    """A run whose LS requests waited so long, with 40 ms between tokens."""
    return record(
        system,
        *(request(i, 11.0 + i / 10, wait, (40.0, 40.0)) for i, wait in enumerate(seconds)),
        **more,
    )


def test_rounds_are_joined_by_their_median_and_compared_with_ls_alone() -> None:
    runs = [waits("ls-alone", 0.1)]
    runs += [waits("strict", wait, round=i) for i, wait in enumerate((0.2, 0.3, 9.0))]
    cells = row(latency_table(Results(runs), "mix"), "strict")
    assert cells[1] == "3"
    assert cells[2] == "0.300 (3.00)"


def test_the_slo_is_ten_decode_iterations_of_ls_alone() -> None:
    results = Results([waits("ls-alone", 0.1), waits("fcfs", 0.39, 0.41, None, 0.2)])
    assert results.ttft_slo("mix") == pytest.approx(0.4)
    text = latency_table(results, "mix")
    assert "in 0.400 s" in text
    assert row(text, "fcfs")[-1] == "50%"
    assert "1 unanswered" in row(text, "fcfs")[1]
    assert Results([waits("fcfs", 0.1)]).ttft_slo("mix") is None


def test_goodput_is_the_highest_rate_that_keeps_nine_of_ten() -> None:
    runs = [waits("ls-alone", 0.1, point=rate) for rate in (1.0, 2.0)]
    runs += [waits("fcfs", 0.2, point=1.0), waits("fcfs", 0.2, 0.9, point=2.0)]
    runs += [waits("strict", 0.2, point=1.0), waits("strict", 0.3, point=2.0)]
    runs += [waits("step", 0.9, point=1.0)]
    text = goodput(Results(runs), "mix")
    assert "fcfs 1;" in text
    assert "strict 2" in text
    assert "step none" in text


def test_where_ours_is_beaten_is_found_and_noise_is_not() -> None:
    stock = waits("fcfs", 0.5), waits("priority-2048", 0.1)
    assert not any("TTFT p50" in line for line in losses(Results([*stock, waits("strict", 0.104)])))
    (line,) = [
        line for line in losses(Results([*stock, waits("strict", 0.2)])) if "TTFT p50" in line
    ]
    assert line == "- mix, LS TTFT p50: 0.200 s; priority-2048 0.100 s"


def test_a_failed_run_and_failed_requests_are_named_with_their_cause() -> None:
    bad = request(0, 11.0, None, outcome="failed", error="HTTP 400: too long")
    runs = [record("fcfs", bad), failed(record("strict"), "the server ended with status 1\nlog")]
    text = render(runs)
    assert "1 x LS: HTTP 400: too long" in text
    assert "strict, round 1 failed**: the server ended with status 1" in text
    assert row(text, "fcfs")[2] == "never"


def test_equality_is_shown_for_every_system() -> None:
    equal = {"LS": Equality([0, 1], 2), "BE": Equality([0, 1, 2], 1, [3, 9])}
    cells = row(render([waits("fcfs", 0.1, equality=equal)]).split("From the engine")[1], "fcfs")
    assert cells[-2:] == ["2 of 2", "1 of 3"]


def test_the_command_prints_and_puts_tables_between_marks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(waits("strict", 0.125), tmp_path / "results")
    assert main([str(tmp_path / "results")]) == 0
    assert "0.125" in capsys.readouterr().out
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main([str(tmp_path / "results"), "--readme", "--into", str(page)]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "0.125" in text
    assert "old" not in text
    put("x", page)
    assert page.read_text() == f"before\n{BEGIN}\n\nx\n\n{END}\nafter\n"


def test_the_command_names_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "gone")]) == 2
    assert "gone" in capsys.readouterr().err
    save(waits("strict", 0.1), tmp_path / "results")
    page = tmp_path / "page.md"
    page.write_text("no marks")
    assert main([str(tmp_path / "results"), "--into", str(page)]) == 2
    assert "page.md" in capsys.readouterr().err
