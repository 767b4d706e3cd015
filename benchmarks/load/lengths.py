# SPDX-License-Identifier: Apache-2.0
"""How long prompts and answers are, in tokens."""

import math
import random
from dataclasses import dataclass
from typing import Protocol


class Lengths(Protocol):
    """Draws the lengths of one request."""

    def one(self, draw: random.Random) -> tuple[int, int]:
        """Tokens of the prompt and of the answer, each at least one."""


@dataclass(frozen=True)
class Fixed:
    """All alike."""

    prompt: int
    output: int

    def __post_init__(self) -> None:
        for name, value in (("prompt", self.prompt), ("output", self.output)):
            if value < 1:
                raise ValueError(f"{name} is {value!r}; it must be at least 1 token")

    def one(self, draw: random.Random) -> tuple[int, int]:
        return self.prompt, self.output


@dataclass(frozen=True)
class LogNormal:
    """Log-normal lengths by their mean and the sigma of their logarithm, cut at a longest.

    The cut lowers the mean a little.
    """

    prompt_mean: float
    prompt_sigma: float
    output_mean: float
    output_sigma: float
    longest_prompt: int
    longest_output: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} is {value!r}; it must be above 0")

    def one(self, draw: random.Random) -> tuple[int, int]:
        prompt = whole(log_normal(draw, self.prompt_mean, self.prompt_sigma), self.longest_prompt)
        output = whole(log_normal(draw, self.output_mean, self.output_sigma), self.longest_output)
        return prompt, output


def log_normal(draw: random.Random, mean: float, sigma: float) -> float:
    """One value of the log-normal distribution whose mean is ``mean``."""
    return draw.lognormvariate(math.log(mean) - sigma**2 / 2, sigma)


def whole(tokens: float, longest: int) -> int:
    """A number of tokens: rounded, at least one, at most ``longest``."""
    return max(1, min(longest, round(tokens)))
