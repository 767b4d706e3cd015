# SPDX-License-Identifier: Apache-2.0
"""Large requests: each is what it says, less urgent where it has a class, and new each time."""

import json

import pytest

from benchmarks.hogs import urgent
from benchmarks.hogs.hog import DETOKENIZE, HOGS, SMALL, TOKENIZE, Hog
from benchmarks.record.record import BE, LS
from benchmarks.systems import LOWER_FIRST

CLASSLESS = (TOKENIZE, DETOKENIZE)


@pytest.mark.parametrize("name", HOGS)
def test_a_hog_is_less_urgent_and_its_first_requests_are_ready(name: str) -> None:
    hog: Hog = HOGS[name]
    hog.prepare()
    assert len(hog.encoded) > hog.copies
    asked = json.loads(hog.bytes_of(0)).get("priority")
    assert asked == (None if hog.path in CLASSLESS else LOWER_FIRST[BE])
    assert hog.bytes_of(0) != hog.bytes_of(1)
    assert hog.beside in urgent.KINDS
    assert hog.path in SMALL


@pytest.mark.parametrize("kind", urgent.KINDS)
def test_urgent_requests_have_grammars_of_their_own(kind: str) -> None:
    first, second = urgent.body(kind, 1), urgent.body(kind, 91)
    assert first["priority"] == LOWER_FIRST[LS]
    constraint = first.get("structured_outputs")
    assert (constraint is None) == (kind == urgent.PLAIN)
    if constraint is not None:
        assert constraint != second["structured_outputs"]
