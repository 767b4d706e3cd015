# SPDX-License-Identifier: Apache-2.0
"""What the command line means."""

import pytest

from benchmarks.measurement.equality import Sample
from benchmarks.measurement.options import QUICK_SAMPLE, parse, sample_of


def test_patience_is_that_of_the_sample() -> None:
    assert sample_of(parse(None, ["mix"])) == Sample()
    assert sample_of(parse(None, ["mix", "--quick"])) == QUICK_SAMPLE
    assert sample_of(parse(None, ["mix", "--patience", "3"])) == Sample(patience=3.0)


def test_no_patience_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(None, ["mix", "--patience", "0"])
    assert "--patience" in capsys.readouterr().err
