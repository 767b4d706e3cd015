# SPDX-License-Identifier: Apache-2.0
"""A seam is wrapped once, at run time or in vLLM's source, and stays what it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from vllm_qllm import seams
from vllm_qllm.seams import RUN_TIME, SOURCE, Seam


def louder(original: Callable[..., Any]) -> Callable[..., Any]:
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return f"{original(*args, **kwargs)}!"

    return replacement


class Owner:
    def plain(self) -> str:
        return "plain"

    @staticmethod
    def still() -> str:
        return "still"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__


@pytest.mark.parametrize(
    ("name", "said"), [("plain", "plain!"), ("still", "still!"), ("of_class", "Fresh!")]
)
def test_it_is_wrapped_once_and_keeps_its_kind(name: str, said: str) -> None:
    fresh = type("Fresh", (), dict(vars(Owner)))
    seam = Seam("m", "Owner", name, (), "a test", louder)
    kind = type(vars(fresh)[name])
    assert seam.install_in(fresh, RUN_TIME)
    assert not seam.install_in(fresh, SOURCE)
    assert getattr(fresh(), name)() == said
    assert getattr(getattr(fresh, name), seams.MARK) == RUN_TIME
    assert type(vars(fresh)[name]) is kind


def test_source_wraps_functions_and_what_dataclasses_make(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def __init__(self: Any, *args: Any) -> None:
            original(self, *args)
            counted.append(self.number)

        return __init__

    known = (
        Seam("m", "", "say", (), "a test", louder),
        Seam("m", "Data", "__init__", (), "a test", counting),
    )
    monkeypatch.setattr(seams, "ALL", known)

    def say() -> str:
        return "hi"

    @dataclass
    class Data:
        number: int

    wrapped = seams.in_source("m.say", say)
    assert wrapped() == "hi!"
    assert getattr(wrapped, seams.MARK) == SOURCE
    assert seams.in_source("m.Data.__init__", Data) is Data
    assert Data(3).number == 3
    assert counted == [3]
    assert seams.in_source("m.unknown", say) is say
