# SPDX-License-Identifier: Apache-2.0
"""Requests that are large in one respect: what each costs a server, it costs in one place."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.hogs.urgent import PLAIN, REGEX, SCHEMA
from benchmarks.record.record import BE
from benchmarks.systems import LOWER_FIRST
from benchmarks.systems.server import SERVED_NAME

COMPLETIONS, CHAT, RESPONSES = "/v1/completions", "/v1/chat/completions", "/v1/responses"
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
MODEL = {"model": SERVED_NAME}
# Prepared beside those that are sent at once.
REPEATS = 6
LESS_URGENT = MODEL | {"priority": LOWER_FIRST[BE]}


@dataclass(frozen=True)
class Hog:
    """One kind of large request.

    Attributes:
        about: in words.
        path: that it is sent to.
        body: the n-th request of the kind; no two are alike, as caches know the last ones.
        copies: how many are sent at once.
        beside: which urgent requests meet it.
    """

    about: str
    path: str
    body: Callable[[int], dict[str, Any]]
    copies: int = 1
    beside: str = PLAIN
    encoded: list[bytes] = field(default_factory=list, compare=False)

    def prepare(self) -> None:
        """Encode requests, which is not to be done while others are timed."""
        bodies = map(self.body, range(len(self.encoded), self.copies + REPEATS))
        self.encoded.extend(json.dumps(body).encode() for body in bodies)

    def bytes_of(self, number: int) -> bytes:
        """The n-th request as it is sent; they come again after all that were prepared."""
        return self.encoded[number % len(self.encoded)]


def completion(prompt: Any = "a", **fields: Any) -> dict[str, Any]:
    """A completion of less urgent work."""
    return LESS_URGENT | {"prompt": prompt, "max_tokens": 8} | fields


def structured(**constraint: Any) -> dict[str, Any]:
    """A completion whose text a grammar bounds."""
    return completion(structured_outputs=constraint, max_tokens=64)


def heavy_schema(number: int) -> dict[str, Any]:
    """A JSON schema of the common kind, only larger: tables of bounded strings and choices."""
    words = [f"w{number}x{i}" for i in range(60)]
    column = {"type": "string", "enum": words}
    text = {"type": "string", "pattern": f"^[a-z{number % 10}]{{1,64}}$"}
    row = {
        "type": "object",
        "properties": {f"c{i}": column if i % 2 else text for i in range(40)},
        "required": [f"c{i}" for i in range(40)],
    }
    return {"type": "array", "items": row, "minItems": 1, "maxItems": 40}


def choices(count: int, number: int) -> list[str]:
    """Choices that no two requests share."""
    return [f"choice {number} {i}" for i in range(count)]


def parts(count: int, number: int) -> list[dict[str, str]]:
    """Parts of the content of a message."""
    return [{"type": "text", "text": f"{number}"}] * count


# A request to each path that costs next to nothing.
SMALL: dict[str, dict[str, Any]] = {
    COMPLETIONS: completion(),
    CHAT: LESS_URGENT | {"messages": [{"role": "user", "content": "a"}], "max_tokens": 8},
    RESPONSES: LESS_URGENT | {"input": [{"role": "user", "content": "a"}], "max_output_tokens": 8},
    TOKENIZE: MODEL | {"prompt": "a"},
    DETOKENIZE: MODEL | {"tokens": [97]},
}
TEXT = "The quick brown fox jumps over the lazy dog. " * (8_000_000 // 45)
CUBIC = 'root ::= s\ns ::= s s | s s s | "a" | "b"'

HOGS = {
    # What the engine's thread does.
    "prompt-logprobs": Hog(
        "prompt_logprobs 20 over 1900 tokens",
        COMPLETIONS,
        lambda n: completion([n % 256, *range(256)] * 7 + [n % 256] * 101, prompt_logprobs=20),
    ),
    "logit-bias": Hog(
        "logit_bias of 250 tokens with logprobs 20",
        COMPLETIONS,
        lambda n: completion(
            logit_bias={str(i): (n + i) % 5 for i in range(250)}, logprobs=20, max_tokens=200
        ),
        copies=4,
    ),
    "cubic-grammar": Hog(
        "a grammar whose acceptance is cubic",
        COMPLETIONS,
        lambda n: completion("a" * (n % 7), structured_outputs={"grammar": CUBIC}, max_tokens=800),
    ),
    "schemas": Hog(
        "24 heavy JSON schemas at once",
        COMPLETIONS,
        lambda n: structured(json=heavy_schema(n)),
        copies=24,
        beside=SCHEMA,
    ),
    "choices-5000": Hog(
        "four lists of 5,000 choices at once",
        COMPLETIONS,
        lambda n: structured(choice=choices(5_000, n)),
        copies=4,
        beside=REGEX,
    ),
    "choices-20000": Hog(
        "four lists of 20,000 choices at once",
        COMPLETIONS,
        lambda n: structured(choice=choices(20_000, n)),
        copies=4,
        beside=REGEX,
    ),
    # What the API server does.
    "choices-100000": Hog(
        "a list of 100,000 choices", COMPLETIONS, lambda n: structured(choice=choices(100_000, n))
    ),
    "truncate": Hog(
        "8 MB of text with truncate_prompt_tokens",
        COMPLETIONS,
        lambda n: completion(f"{n} {TEXT}", truncate_prompt_tokens=16, truncation_side="left"),
    ),
    "truncate-tokenizer-side": Hog(
        "8 MB of text with truncate_prompt_tokens, the side left to the tokenizer",
        COMPLETIONS,
        lambda n: completion(f"{n} {TEXT}", truncate_prompt_tokens=16),
    ),
    "tokenize": Hog("/tokenize of 8 MB", TOKENIZE, lambda n: MODEL | {"prompt": f"{n} {TEXT}"}),
    "detokenize": Hog(
        "/detokenize of 2 M ids", DETOKENIZE, lambda n: MODEL | {"tokens": [97 + n % 7] * 2**21}
    ),
    "messages": Hog(
        "60,000 chat messages",
        CHAT,
        lambda n: LESS_URGENT | {"messages": [{"role": "user", "content": f"{n}"}] * 60_000},
    ),
    "n": Hog("n of 16,000", COMPLETIONS, lambda n: completion(f"{n}", n=16_000, max_tokens=1)),
    # Many at once, each of which is below the default limits.
    "messages-fit": Hog(
        "20 times 3,200 chat messages at once",
        CHAT,
        lambda n: LESS_URGENT | {"messages": [{"role": "user", "content": f"{n}"}] * 3_200},
        copies=20,
    ),
    "parts-fit": Hog(
        "20 chat messages of 3,200 parts each at once",
        CHAT,
        lambda n: (
            LESS_URGENT
            | {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": f"{n}"}] * 3_200}
                ]
            }
        ),
        copies=20,
    ),
    "responses-fit": Hog(
        "10 responses to 1,050 items at once",
        RESPONSES,
        lambda n: LESS_URGENT | {"input": [{"role": "user", "content": f"{n}"}] * 1_050},
        copies=10,
    ),
    "ids-fit": Hog(
        "10 prompts of 500,000 ids at once",
        COMPLETIONS,
        lambda n: completion([n] * 500_000),
        copies=10,
    ),
    "choices-fit": Hog(
        "4 lists of 15,800 choices at once",
        COMPLETIONS,
        lambda n: structured(choice=choices(15_800, n)),
        copies=4,
    ),
    "tokenize-fit": Hog(
        "20 times /tokenize of 256 KiB at once",
        TOKENIZE,
        lambda n: MODEL | {"prompt": f"{n:02} {TEXT}"[: 2**18]},
        copies=20,
    ),
    "detokenize-fit": Hog(
        "20 times /detokenize of 256 Ki ids at once",
        DETOKENIZE,
        lambda n: MODEL | {"tokens": [97 + n % 7] * 2**18},
        copies=20,
    ),
    "n-fit": Hog(
        "4 times n of 256 at once",
        COMPLETIONS,
        lambda n: completion(f"{n}", n=256, max_tokens=1),
        copies=4,
    ),
}
