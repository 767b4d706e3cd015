# SPDX-License-Identifier: Apache-2.0
"""How large a request may be: numbers of the configuration, or what the model's length says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vllm_qllm.access.refusal import is_anthropic
from vllm_qllm.config import PriorityConfig
from vllm_qllm.intake.json_size import COMMAS

# Of a body. A session of four hundred turns with thirty tools has half as many.
LEAST_ITEMS, TOKENS_AN_ITEM = 2**14, 8
# What takes vLLM longer to validate than the other APIs, and how many times.
SLOW_PATHS = {
    "/v1/responses": 3,
    "/v1/messages": 2,
    "/v1/messages/count_tokens": 2,
    "/cohere/v2/chat": 2,
}
# Every so many numbers are one of them.
ITEMS = f"texts, names, lists and objects, or {COMMAS} times as many numbers,"
# Of a text. English has four characters a token, other texts have fewer.
LEAST_CHARS, CHARS_A_TOKEN = 2**18, 16
# As many prompts as vLLM takes in a request; of one prompt more than any API promises.
SEQUENCES, N = 1024, 256


@dataclass(frozen=True)
class Limits:
    """The limits of a server whose model is known.

    Attributes:
        config: of the server.
        body_bytes, body_items: of a request of any class, as its class is in its body.
        classes: names, most urgent first.
        prompt_chars, sequences, n: by class; None for no limit.
    """

    config: PriorityConfig
    body_bytes: int
    body_items: int
    classes: tuple[str, ...]
    prompt_chars: tuple[int | None, ...]
    sequences: tuple[int | None, ...]
    n: tuple[int | None, ...]

    @classmethod
    def of(cls, config: PriorityConfig, max_model_len: int) -> Limits:
        """Those of a configuration; where it names none, none for the most urgent class.

        Args:
            config: of the server.
            max_model_len: tokens of the longest sequence.
        """
        items, chars = max_model_len // TOKENS_AN_ITEM, max_model_len * CHARS_A_TOKEN
        chars = max(LEAST_CHARS, chars)
        classes = config.classes
        return cls(
            config=config,
            body_bytes=config.max_body_bytes,
            body_items=config.max_body_items or max(LEAST_ITEMS, items),
            classes=tuple(c.name for c in classes),
            prompt_chars=_by_class([c.max_prompt_chars for c in classes], chars),
            sequences=_by_class([c.max_sequences for c in classes], SEQUENCES),
            n=_by_class([c.max_n for c in classes], N),
        )

    def items_at(self, path: str) -> int:
        """How many items a body may hold that is sent to a path."""
        return max(1, self.body_items // self._times(path))

    @staticmethod
    def _times(path: str) -> int:
        return SLOW_PATHS.get(path, 1)

    def items_problem(self, path: str, count: int) -> str | None:
        """Why a body that is sent to a path holds too much.

        Anthropic's clients shorten their conversation and ask again when they read how that API
        words it, and stay where they are when they are told that the request is too large.
        """
        most = self.items_at(path)
        if count <= most:
            return None
        part = f", divided by {self._times(path)} at {path}" if self._times(path) > 1 else ""
        if is_anthropic(path):
            return (
                f"prompt is too long: {count} {ITEMS} > {most} maximum "
                f"(of messages, system and tools together: max_body_items{part})"
            )
        return f"the body holds {count} {ITEMS}; allowed: {most} (max_body_items{part})"

    def chars_problem(self, level: int, count: int, what: str) -> str | None:
        """Why a text is too long to be tokenized in its class, or a list of ids to be decoded."""
        limit = self.prompt_chars[level]
        if limit is None or count <= limit:
            return None
        return (
            f"the {what} are {count}; allowed: {limit} in class {self.classes[level]} "
            "(max_prompt_chars)"
        )

    def sequences_problem(self, level: int, count: int, n: int) -> str | None:
        """Why a request asks for too many sequences for its class.

        Args:
            level: index of the class.
            count: prompts times ``n``.
            n: sequences of one prompt.
        """
        for what, number, limits, name in (
            ("n is", n, self.n, "max_n"),
            ("prompts times n are", count, self.sequences, "max_sequences"),
        ):
            limit = limits[level]
            if limit is not None and number > limit:
                return f"{what} {number}; allowed: {limit} in class {self.classes[level]} ({name})"
        return None


def _by_class(given: Sequence[int | None], usual: int) -> tuple[int | None, ...]:
    return tuple(limit or (usual if level else None) for level, limit in enumerate(given))
