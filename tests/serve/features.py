# SPDX-License-Identifier: Apache-2.0
"""Requests that use one feature each, for any server of a generating model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from benchmarks.models.tokenizer import EOS
from tests.serve.answers import Answer
from tests.serve.rivals import Question, text

LONG = text(1, 1900)
PROMPT = {"prompt": LONG, "max_tokens": 12, "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": LONG}], "max_tokens": 12, "temperature": 0}
INPUT = {"input": LONG, "max_output_tokens": 12, "temperature": 0, "store": False}

SCHEMA: Any = {
    "type": "object",
    "properties": {"size": {"enum": [1, 2, 3]}, "colour": {"enum": ["red", "blue"]}},
    "required": ["size", "colour"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "shirt", "schema": SCHEMA}}
# JSON allows any amount of white space, and tool calls any number of calls; a random model goes on.
BRIEFLY = {str(token): -100 for token in (197, 198, 201, 220)} | {str(EOS): 100}
SAMPLED = {"temperature": 1.0, "seed": 7, "top_p": 0.9, "top_k": 50, "min_p": 0.01}


def ended(count: int) -> Callable[[Answer], bool]:
    """So many parts, of as many tokens as were allowed."""
    return lambda answer: len(answer.parts) == count and answer.tokens == 12 * count


def matches(regex: str) -> Callable[[Answer], bool]:
    """The text is one of those that the grammar allows."""
    return lambda answer: re.fullmatch(regex, answer.text) is not None


def follows_schema(answer: Answer) -> bool:
    """The text is an object of the schema."""
    said = json.loads(answer.text)
    return set(said) == {"size", "colour"} and all(
        value in SCHEMA["properties"][name]["enum"] for name, value in said.items()
    )


def completion(shows: Callable[[Answer], bool], stream: bool = False, **fields: Any) -> Question:
    """A question to ``/v1/completions`` of which all ``fields`` matter."""
    return Question("/completions", PROMPT | fields, shows, tuple(fields), stream)


def chat(shows: Callable[[Answer], bool], stream: bool = False, **fields: Any) -> Question:
    """A question to ``/v1/chat/completions`` of which all ``fields`` matter."""
    return Question("/chat/completions", CHAT | fields, shows, tuple(fields), stream)


def response(shows: Callable[[Answer], bool], stream: bool = False, **fields: Any) -> Question:
    """A question to ``/v1/responses`` of which all ``fields`` matter."""
    return Question("/responses", INPUT | fields, shows, tuple(fields), stream)


def calls_tool(answer: Answer) -> bool:
    """The tool is called, with arguments of its schema."""
    return answer.parts[0].call == "order_shirt" and follows_schema(answer)


ends = ended(1)
OF_CHAT = {"logprobs": True, "top_logprobs": 2}
OF_RESPONSE = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
BIASED = {"logit_bias": {"5": 3.0, "9": 2.0}}
PENALTIES = {"presence_penalty": 1.5, "frequency_penalty": 1.0, "repetition_penalty": 1.3}
JSON_SCHEMA = {"response_format": FORMAT, "logit_bias": BRIEFLY, "max_tokens": 60}

# What it is, what it covers, and the request.
QUESTIONS: list[tuple[str, tuple[str, ...], Question]] = [
    ("completion", ("Completions", "Logprobs"), completion(ends, logprobs=2)),
    (
        "completion, streamed",
        ("Completions", "Streaming"),
        completion(ends, stream=True, logprobs=2),
    ),
    (
        "completions of two prompts",
        ("Completions",),
        Question("/completions", PROMPT | {"prompt": [text(1, 900), text(2, 900)]}, ended(2)),
    ),
    ("chat", ("Chat completions", "Logprobs"), chat(ends, **OF_CHAT)),
    ("chat, streamed", ("Chat completions", "Streaming"), chat(ends, stream=True, **OF_CHAT)),
    ("response", ("Responses", "Logprobs"), response(ends, **OF_RESPONSE)),
    # No log-probabilities here: vLLM leaves those of tokens without a text of their own out.
    ("response, streamed", ("Responses", "Streaming"), response(ends, stream=True)),
    (
        "batch of chats",
        ("Chat completions",),
        Question(
            "/chat/completions/batch",
            CHAT | {"messages": [[{"role": "user", "content": text(n, 900)}] for n in (1, 2)]},
            ended(2),
        ),
    ),
    ("n", ("n > 1",), completion(ended(3), n=3, logprobs=1, **SAMPLED)),
    ("n, streamed", ("n > 1", "Streaming"), chat(ended(2), stream=True, n=2, **SAMPLED)),
    (
        "prompt_logprobs",
        ("Prompt logprobs",),
        completion(lambda a: len(a.prompt) >= 2 * 1899, prompt_logprobs=2, **PENALTIES),
    ),
    ("seed", ("Seeded sampling",), completion(ends, **SAMPLED)),
    ("seed, streamed", ("Seeded sampling", "Streaming"), chat(ends, stream=True, **SAMPLED)),
    ("penalties", ("Penalties",), completion(ends, **PENALTIES)),
    ("logit_bias", ("Logit bias",), completion(ends, **BIASED)),
    (
        "stop",
        ("Stop strings",),
        Question(
            "/completions",
            PROMPT | {"structured_outputs": {"regex": "[a-c]{4}END[a-c]{5}"}, "stop": ["END"]},
            lambda answer: answer.parts[0].end == ("stop", "END") and len(answer.text) == 4,
            matters=("stop",),
        ),
    ),
    (
        "stop, streamed",
        ("Stop strings", "Streaming"),
        Question(
            "/chat/completions",
            CHAT | {"structured_outputs": {"regex": "[a-c]{4}END[a-c]{5}"}, "stop": ["END"]},
            lambda answer: answer.parts[0].end == ("stop", "END") and len(answer.text) == 4,
            matters=("stop",),
            stream=True,
        ),
    ),
    (
        "min_tokens",
        ("min_tokens",),
        Question(
            "/completions",
            PROMPT | {"logit_bias": {str(EOS): 100}, "min_tokens": 6},
            lambda answer: answer.parts[0].end[0] == "stop" and answer.tokens == 7,
            matters=("min_tokens",),
        ),
    ),
    (
        "JSON schema, completion",
        ("Structured output: JSON schema",),
        completion(follows_schema, **JSON_SCHEMA),
    ),
    (
        "JSON schema, chat, streamed",
        ("Structured output: JSON schema", "Streaming"),
        chat(follows_schema, stream=True, **JSON_SCHEMA),
    ),
    (
        "JSON schema, response",
        ("Structured output: JSON schema",),
        response(
            follows_schema,
            text={"format": {"type": "json_schema", "name": "shirt", "schema": SCHEMA}},
            logit_bias=BRIEFLY,
            max_output_tokens=60,
        ),
    ),
    (
        "regex",
        ("Structured output: regex",),
        completion(matches("[a-f]{6}[0-9]{6}"), structured_outputs={"regex": "[a-f]{6}[0-9]{6}"}),
    ),
    (
        "choice",
        ("Structured output: choice",),
        chat(matches("violet|green"), structured_outputs={"choice": ["violet", "green"]}),
    ),
]
BEAM_SEARCH = [
    ("completion", completion(lambda a: len(a.parts) == 3, use_beam_search=True, n=3)),
    ("chat", chat(lambda a: len(a.parts) == 3, use_beam_search=True, n=3)),
]

# For a server with a parser of tool calls.
TOOL = {"name": "order_shirt", "parameters": SCHEMA, "strict": True}
OF_TOOL = {"logit_bias": BRIEFLY, "max_tokens": 100}
CHAT_TOOLS: Any = {"tools": [{"type": "function", "function": TOOL}]}
NAMED = {"type": "function", "function": {"name": "order_shirt"}}
TOOL_CALLS = [
    ("required", chat(calls_tool, **OF_TOOL, **CHAT_TOOLS, tool_choice="required")),
    ("required, streamed", chat(calls_tool, True, **OF_TOOL, **CHAT_TOOLS, tool_choice="required")),
    ("named", chat(calls_tool, **OF_TOOL, **CHAT_TOOLS, tool_choice=NAMED)),
    (
        "required, response",
        response(
            calls_tool,
            tools=[{"type": "function"} | TOOL],
            tool_choice="required",
            logit_bias=BRIEFLY,
            max_output_tokens=100,
        ),
    ),
]
