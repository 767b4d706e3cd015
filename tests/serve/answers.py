# SPDX-License-Identifier: Apache-2.0
"""What an answer of the OpenAI API says, whole or streamed, without ids and times."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from tests.serve.server import MODEL

Json = dict[str, Any]


@dataclass
class Part:
    """One choice, or one item of a response's output.

    Attributes:
        text: that was generated, or the arguments of a tool call.
        call: name of the tool that is called.
        tokens: texts of the tokens, if log-probabilities were asked for.
        logprobs: of the tokens.
        tops: of the tokens that were likeliest in their place.
        end: why it ended.
    """

    text: str = ""
    call: str = ""
    tokens: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tops: list[float] = field(default_factory=list)
    end: Any = None

    @property
    def said(self) -> Any:
        """The text; the arguments of a call as values, as vLLM only streams them as generated."""
        return json.loads(self.text) if self.call else self.text


@dataclass
class Answer:
    """An answer.

    Attributes:
        parts: in order of their index.
        prompt: log-probabilities of the prompt's tokens.
        tiers: every ``service_tier`` that it, its chunks or its events name.
        tokens: number of generated tokens.
    """

    parts: list[Part] = field(default_factory=list)
    prompt: list[float] = field(default_factory=list)
    tiers: set[str | None] = field(default_factory=set)
    tokens: int = 0

    def part(self, index: int) -> Part:
        while len(self.parts) <= index:
            self.parts.append(Part())
        return self.parts[index]

    @property
    def text(self) -> str:
        """The text of an answer of one part."""
        (part,) = self.parts
        return part.text


def assert_same(got: Answer, expected: Answer) -> None:
    """Texts, tokens and ends are equal, log-probabilities up to what the batch's size changes."""
    assert got.tokens == expected.tokens
    assert len(got.parts) == len(expected.parts)
    for mine, other in zip(got.parts, expected.parts, strict=True):
        assert (mine.said, mine.call, mine.tokens) == (other.said, other.call, other.tokens)
        assert mine.end == other.end
        assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert mine.tops == pytest.approx(other.tops, abs=1e-4)
    assert got.prompt == pytest.approx(expected.prompt, abs=1e-4)


async def whole(client: openai.AsyncOpenAI, path: str, body: Json) -> Answer:
    """POST and read the answer."""
    data: Any = await client.post(path, body={"model": MODEL} | body, cast_to=object)
    return _from_response(data) if path == "/responses" else _from_choices([data])


async def streamed(client: openai.AsyncOpenAI, path: str, body: Json) -> Answer:
    """POST with ``stream`` and put the answer together again."""
    asked: Json = {"model": MODEL} | body
    if path == "/responses":
        events: Any = await client.responses.create(input="", stream=True, extra_body=asked)
        return _from_events([event.model_dump() async for event in events])
    asked |= {"stream_options": {"include_usage": True}}
    chunks: Any
    if path == "/completions":
        chunks = await client.completions.create(
            model=MODEL, prompt="", stream=True, extra_body=asked
        )
    else:
        chunks = await client.chat.completions.create(
            model=MODEL, messages=[], stream=True, extra_body=asked
        )
    return _from_choices([chunk.model_dump() async for chunk in chunks])


def _from_choices(chunks: Iterable[Json]) -> Answer:
    """From a whole answer to a completion or a chat, or from the chunks of one."""
    answer = Answer()
    for chunk in chunks:
        answer.tiers.add(chunk.get("service_tier"))
        answer.tokens = (chunk.get("usage") or {}).get("completion_tokens", 0)
        answer.prompt += _of_prompt(chunk.get("prompt_logprobs"))
        for choice in chunk["choices"]:
            part = answer.part(choice["index"])
            said = choice.get("message") or choice.get("delta") or choice
            part.text += said.get("text") or said.get("content") or ""
            for call in said.get("tool_calls") or ():
                part.call += call["function"].get("name") or ""
                part.text += call["function"].get("arguments") or ""
            if choice.get("finish_reason"):
                part.end = choice["finish_reason"], choice.get("stop_reason")
            if choice["index"] == 0:
                answer.prompt += _of_prompt(choice.get("prompt_logprobs"))
            _add_logprobs(part, choice.get("logprobs") or {})
    return answer


def _of_prompt(positions: Iterable[Json | None] | None) -> list[float]:
    return [entry["logprob"] for position in positions or () for entry in (position or {}).values()]


def _add_logprobs(part: Part, logprobs: Json) -> None:
    part.tokens += logprobs.get("tokens") or ()
    part.logprobs += [n for n in logprobs.get("token_logprobs") or () if n is not None]
    for tops in logprobs.get("top_logprobs") or ():
        part.tops += (tops or {}).values()
    _add_tokens(part, logprobs.get("content") or ())


def _add_tokens(part: Part, tokens: Iterable[Json]) -> None:
    for token in tokens:
        part.tokens.append(token["token"])
        part.logprobs.append(token["logprob"])
        part.tops += [top["logprob"] for top in token["top_logprobs"]]


def _from_response(data: Json) -> Answer:
    answer = Answer(tiers={data["service_tier"]}, tokens=data["usage"]["output_tokens"])
    for index, item in enumerate(data["output"]):
        part = answer.part(index)
        part.end = data["status"]
        part.call, part.text = item.get("name") or "", item.get("arguments") or ""
        for content in item.get("content") or ():
            part.text += content["text"]
            _add_tokens(part, content.get("logprobs") or ())
    return answer


def _from_events(events: list[Json]) -> Answer:
    answer = _from_response(events[-1]["response"])
    answer.tiers |= {e["response"]["service_tier"] for e in events if e.get("response")}
    texts: dict[int, Part] = {}
    for event in events:
        if event["type"].endswith((".output_text.delta", ".function_call_arguments.delta")):
            index = event["output_index"]
            whole_part = answer.parts[index]
            part = texts.setdefault(index, Part(call=whole_part.call, end=whole_part.end))
            part.text += event["delta"]
            _add_tokens(part, event.get("logprobs") or ())
    for index, part in texts.items():
        assert part.text == answer.parts[index].text, "the deltas are not what was completed"
        answer.parts[index] = part
    assert len(texts) == len(answer.parts)
    return answer
