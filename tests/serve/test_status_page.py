# SPDX-License-Identifier: Apache-2.0
"""The status page in a real browser, on a real server under load: it shows what is so.

With ``STATUS_PICTURES=DIRECTORY`` it leaves pictures of the page there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.browser import Tab
from tests.serve.conftest import HOSTILE
from tests.serve.prefix import below_a_prefix
from tests.serve.server import MODEL, Server
from tests.serve.test_preemption import prompt

pytestmark = [pytest.mark.server, pytest.mark.slow]

LS, BE = "latency_sensitive", "best_effort"
STATE = "document.getElementById('state').dataset.state"
UNITS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
# A nested step is drawn above a suspended one, at the same time: their boxes say so.
NESTED = f"""(() => {{
  const box = (node) => node.getBoundingClientRect();
  const above = [...document.querySelectorAll('#lanes g[data-class="{LS}"] .step')];
  return [...document.querySelectorAll('#lanes g[data-class="{BE}"] .stopped[data-by="{LS}"]')]
    .filter((stopped) => above.some((step) => box(step).bottom < box(stopped).top
      && box(step).left >= box(stopped).left - 1 && box(step).right <= box(stopped).right + 1
      && step.parentNode.dataset.depth === "1")).length;
}})()"""
# A suspension that has ended.
RESUMED = f"steps.stops().find((stop) => stop.end !== null && stop.by === '{LS}')"
# The first step in which a request with such a name began.
BEGAN = f"""(() => {{
  const named = (step) => step.requests.some((request) => request.id?.includes({HOSTILE[:8]!r}));
  const step = [...steps.steps.values()].filter(named).find((step) =>
    document.querySelector(`#lanes [data-step="${{step.number}}"]`));
  if (!step) return null;
  const box = document.querySelector(`#lanes [data-step="${{step.number}}"] rect`)
    .getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
}})()"""


def picture(tab: Tab, name: str, *, whole: bool = True) -> None:
    """Leave a picture if somebody wants it."""
    if directory := os.environ.get("STATUS_PICTURES"):
        tab.picture(Path(directory, f"{name}.png"), whole=whole)


def seconds(text: str) -> float:
    """From what the page says of a time."""
    words = text.split()
    return sum(float(n) * UNITS[unit] for n, unit in zip(words[::2], words[1::2], strict=True))


class Load:
    """Best-effort prompts without end, and urgent requests upon them, until it is left."""

    def __init__(self, url: str) -> None:
        self._url, self._ended = url, threading.Event()

    async def _ask(self, client: openai.AsyncOpenAI, seed: int, length: int, priority: int) -> None:
        await client.completions.create(
            model=MODEL,
            prompt=prompt(seed, length),
            max_tokens=24,
            extra_body={"priority": priority, "ignore_eos": True},
            extra_headers={"X-Request-Id": f"{HOSTILE}{seed}"},
        )

    async def _repeat(self, client: openai.AsyncOpenAI, first: int, urgent: bool) -> None:
        seed = first
        while not self._ended.is_set():
            seed += 1
            if urgent:
                await asyncio.sleep(0.4)
            await self._ask(client, seed, 40 if urgent else 1900, 0 if urgent else 9)

    async def _run(self) -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{self._url}/v1", api_key="none", max_retries=0
        ) as client:
            first = 5_000_000
            clients = [self._repeat(client, first + 10_000 * n, n == 0) for n in range(5)]
            await asyncio.gather(*clients)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Clients ask while the block lasts; after it all have been answered."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(self._run())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
        assert not failed, failed


def shown(tab: Tab, field: str) -> str:
    """The text of a number of a class."""
    return tab.text(f'[data-field="{field}"]')


def expected(samples: dict[str, float], name: str) -> dict[str, str]:
    """What the page must show of a class, in words, of what can be said exactly."""
    label = f'{{class="{name}"}}'
    found = {
        key: f"{samples[f'qllm_requests_{key}{label}']:.0f}"
        for key in ("running", "waiting", "suspended")
    }
    found["parked"] = f"{samples[f'qllm_parked_requests{label}']:.0f}"
    for key, metric in {
        "time_to_first_token.count": "qllm_time_to_first_token_seconds_count",
        "response.count": "qllm_response_seconds_count",
        "end_to_end.count": "qllm_end_to_end_seconds_count",
        "suspended.count": "qllm_suspended_seconds_count",
    }.items():
        found[key] = f"{samples[metric + label]:.0f}"
    return found


def quantile(samples: dict[str, float], metric: str, name: str, share: float) -> float:
    """As Prometheus defines it, from the buckets on ``/metrics``."""
    pattern = re.compile(rf'{metric}_bucket{{class="{name}",le="(.*)"}}')
    buckets = sorted(
        (float(found[1]), count)
        for key, count in samples.items()
        if (found := pattern.fullmatch(key))
    )
    below_it = share * buckets[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= below_it:
            return lower + (bound - lower) * (below_it - below) / (count - below)
        lower, below = bound, count
    raise AssertionError("the last bucket holds all")


@pytest.mark.covers("Status page", "eager", suspended=True)
def test_it_draws_nested_steps_and_shows_hostile_names(server: Server, tab: Tab) -> None:
    tab.look(1440, 900)
    tab.problems.clear()
    tab.open(f"{server.url}/qllm/?seconds=0&span=5")
    with Load(server.url).running():
        if "STATUS_PICTURES" in os.environ:
            time.sleep(20)  # for something to look at
        # As a person who wants to look, at the same moment: then nothing moves any more.
        pause = "(document.getElementById('pause').click(), true)"
        seen = f"{NESTED} > 0 && {BEGAN} !== null && !!{RESUMED}"
        tab.wait_for(f"{seen} && {pause}", within_seconds=120)
        assert tab.evaluate(NESTED) > 0
        tab.move(*tab.evaluate(BEGAN))
        tab.wait_for("!!document.querySelector('#detail h3')")
        assert HOSTILE[:16] in tab.text("#detail")
        for key in ("Home", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "End"):
            before = tab.text("#detail h3")
            tab.evaluate("document.getElementById('lanes').focus()")
            tab.press(key)
            assert tab.evaluate("document.activeElement.id") == "lanes"
        assert tab.text("#detail h3").startswith("Step ") and before
        tab.evaluate(f"lanes.choose({RESUMED}.step)")
        assert f"for {LS}" in tab.text("#detail")
        picture(tab, "desktop")
        tab.look(1440, 900, dark=True)
        picture(tab, "dark")
        tab.look(390, 844, phone=True)
        picture(tab, "phone")
        tab.look(1440, 900)
    latest = tab.evaluate("[...document.querySelectorAll('#latest tr')].map((r) => r.innerText)")
    assert latest and all("layer" in row for row in latest)
    assert HOSTILE in tab.text("#model")
    # No text has become an element, and nothing was said on the console.
    assert tab.evaluate("document.images.length") == 0
    assert not tab.problems


def test_it_shows_what_metrics_say(server: Server, tab: Tab) -> None:
    tab.look(1440, 900)
    tab.open(f"{server.url}/qllm/?seconds=0")
    samples = server.samples()
    for name in (LS, BE):
        for key, text in expected(samples, name).items():
            wanted = f"""document.querySelector('[data-field="{name}.{key}"]')?.innerText.trim()"""
            tab.wait_for(f"{wanted} === {text!r}")
        for key, metric in {
            "time_to_first_token": "qllm_time_to_first_token_seconds",
            "response": "qllm_response_seconds",
            "end_to_end": "qllm_end_to_end_seconds",
        }.items():
            for percent in (50, 90, 99):
                text = shown(tab, f"{name}.{key}.p{percent}")
                value = quantile(samples, metric, name, percent / 100)
                assert seconds(text) == pytest.approx(value, rel=0.01), (name, key, percent)
        count = samples[f'qllm_time_to_first_token_seconds_count{{class="{name}"}}']
        bound = "0.5" if name == LS else "40.0"
        timely = samples[f'qllm_time_to_first_token_seconds_bucket{{class="{name}",le="{bound}"}}']
        kept = float(shown(tab, f"{name}.kept").split()[1])
        assert kept == pytest.approx(100 * timely / count, abs=0.1)
        assert ("✓" in shown(tab, f"{name}.kept")) == (
            timely / count >= (0.99 if name == LS else 0.95)
        )
    rows = tab.evaluate("[...document.querySelectorAll('#suspensions tr')].map((r) => r.innerText)")
    key = f'{{by="{LS}",of="{BE}"}}'
    numbers = [int(samples[f"qllm_{n}_total{key}"]) for n in ("suspensions", "nested_steps")]
    assert rows[0].split() == [BE, LS, *map(str, numbers)] and numbers[0] > 0
    assert not tab.problems


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_nothing_is_wider_than_the_screen(server: Server, tab: Tab, width: int) -> None:
    tab.look(width, 844, phone=width < 500)
    tab.open(f"{server.url}/qllm/")
    tab.wait_for(f"{STATE} === 'serving' && !!document.querySelector('#lanes svg')")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_a_screen_reader_finds_its_way(server: Server, tab: Tab) -> None:
    tab.look(1440, 900)
    tab.open(f"{server.url}/qllm/")
    tab.wait_for(f"{STATE} === 'serving' && !!document.querySelector('#lanes svg')")
    nodes: list[dict[str, Any]] = tab.call("Accessibility.getFullAXTree")["nodes"]
    told = {
        (n["role"]["value"], n["name"]["value"]) for n in nodes if not n["ignored"] and "name" in n
    }
    for role, name in [
        *(("heading", title) for title in ("Classes", "Steps", "Suspensions", "Policy")),
        *(("heading", name) for name in (LS, BE)),
        *(("table", f"Times of {name}") for name in (LS, BE)),
        ("table", "In the window"),
        ("combobox", "Window"),
        ("combobox", "Show"),
        ("button", "Pause"),
    ]:
        assert (role, name) in told, (role, name)
    assert any(role == "group" and "Steps of the last 5 s: " in name for role, name in told)
    assert any(role == "image" and name.startswith("Tokens a second") for role, name in told)
    # With the keyboard alone: every control once, in the order of the page.
    reached = []
    for _ in range(12):
        tab.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id"))
    controls = ["window", "span", "pause", "lanes"]
    assert [name for name in reached if name in controls][:4] == controls


def test_below_a_prefix_and_through_an_outage(server: Server, tab: Tab) -> None:
    tab.look(1440, 900)
    with below_a_prefix(server) as prefix:
        tab.open(f"{prefix.url}/qllm/")
        tab.wait_for(f"{STATE} === 'serving' && !!document.querySelector('#lanes svg')")
        prefix.signal(signal.SIGSTOP)
        # What is shown gets old, and the page says so while it still waits.
        tab.wait_for(f"{STATE} === 'silent' && document.body.matches('.stale')", 60)
        assert "No answer for" in tab.text("#state")
        prefix.signal(signal.SIGCONT)
        tab.wait_for(f"{STATE} === 'serving' && !document.body.matches('.stale')", 60)
        prefix.stop()
        tab.wait_for(f"{STATE} === 'silent'", 60)
        picture(tab, "silent")
        prefix.start()
        tab.wait_for(f"{STATE} === 'serving'", 60)
        assert tab.evaluate("performance.getEntriesByType('navigation').length") == 1
    tab.open("about:blank")
    # The browser itself notes requests that failed; nothing else is wrong.
    assert all("net::ERR_" in problem for problem in tab.problems), tab.problems
    tab.problems.clear()
