# SPDX-License-Identifier: Apache-2.0
"""What dashboards and alerts ask for exists: a real Prometheus answers it about real replicas."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import yaml

from tests.deploy.fleet import Fleet
from tests.deploy.prometheus import SOURCE, Prometheus, scrape
from tests.deploy.tools import PYTHON, TREE
from tests.deploy.traffic import BE, LS, traffic
from tests.serve.server import MODEL

GRAFANA = TREE / "deploy/grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
# What Grafana puts in for the variables.
VARIABLES = {"$instance": ".*", "$class": ".*", "$__rate_interval": "1m"}
OURS = re.compile(r"\b(?:qllm_|vllm:|process_)[a-zA-Z0-9_:]*")


def rules() -> list[dict[str, Any]]:
    """All recording rules and alerts."""
    files = (SOURCE / "objectives.yml", SOURCE / "alerts.yml")
    groups = [g for file in files for g in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def panel_queries() -> dict[str, str]:
    """Every query of every panel, by the panel's title and the query's letter."""
    found = {}
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"]
                for name, value in VARIABLES.items():
                    expression = expression.replace(name, value)
                found[f"{panel['title']} {target['refId']}"] = expression
    return found


@pytest.fixture(scope="module")
def prometheus(
    running_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that has seen a little load on both replicas."""
    replicas = (running_fleet.a, running_fleet.b)
    with scrape([r.address for r in replicas], tmp_path_factory.mktemp("prometheus")) as running:
        running.wait_for(f'count(up{{job="vllm"}} == 1) == {len(replicas)}')

        async def load() -> None:
            async with traffic(running_fleet.balancer.url, running_fleet.key) as clients:
                await clients.more(16)
            # So that there is a refusal to show.
            url = f"{running_fleet.balancer.url}/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key="no") as stranger:
                with pytest.raises(openai.AuthenticationError):
                    await stranger.completions.create(model=MODEL, prompt="let me in")

        asyncio.run(load())
        yield running


# Two servers are started at once, on what may be two busy cores.
@pytest.mark.timeout(600)
@pytest.mark.server
@pytest.mark.slow
class TestAgainstRealReplicas:
    def test_both_replicas_are_scraped(self, running_fleet: Fleet, prometheus: Prometheus) -> None:
        up = prometheus.query("up")
        assert up == {
            f"instance={replica.address},job=vllm": 1.0
            for replica in (running_fleet.a, running_fleet.b)
        }
        # Not scraped at the same time, they may come one after the other.
        prometheus.wait_for("count(sum by (instance) (qllm_requests_total) > 0) == 2")

    def test_every_metric_that_is_named_exists(
        self, running_fleet: Fleet, prometheus: Prometheus
    ) -> None:
        # Of either: only one of them has refused a request.
        replicas = (running_fleet.a, running_fleet.b)
        exist = {key.partition("{")[0] for r in replicas for key in r.server.samples(prefix="")}
        expressions = [rule["expr"] for rule in rules()] + list(panel_queries().values())
        named = {name for expression in expressions for name in OURS.findall(expression)}
        assert len(named) > 15
        assert not named - exist

    def test_the_objectives_are_bounds_of_the_histogram(self, running_fleet: Fleet) -> None:
        samples = running_fleet.a.server.samples()
        text = (SOURCE / "objectives.yml").read_text()
        pattern = r'(\w+_bucket)\{class="(\w+)", le="([\d.]+)"\}'
        found = set(re.findall(pattern, text))
        assert {cls for _, cls, _ in found} == {LS, BE}
        for name, cls, bound in found:
            assert f'{name}{{class="{cls}",le="{bound}"}}' in samples

    def test_objectives_have_values(self, prometheus: Prometheus) -> None:
        for rule in rules():
            if "record" in rule:
                found = prometheus.wait_for(rule["record"])
                assert {f"class={LS}", f"class={BE}"} == found.keys(), rule["record"]
        late = prometheus.query("qllm:slo_first_token:late_ratio_5m")
        assert all(0 <= share <= 1 for share in late.values())

    @pytest.mark.parametrize("panel", panel_queries())
    def test_a_panel_shows_something(self, prometheus: Prometheus, panel: str) -> None:
        prometheus.wait_for(panel_queries()[panel], within_seconds=30)

    def test_all_rules_are_evaluated_and_no_alert_fires(self, prometheus: Prometheus) -> None:
        groups = prometheus.get("rules")["groups"]
        evaluated = [rule for group in groups for rule in group["rules"]]
        assert len(evaluated) == len(rules())
        assert not [rule for rule in evaluated if rule["health"] != "ok"]
        assert not prometheus.query('ALERTS{alertstate="firing",severity="critical"}')


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_grafana_knows_every_field(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grafana's own library reads it and writes it again: what it does not know would be lost."""
    monkeypatch.syspath_prepend(str(PYTHON))
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    ours = json.loads(path.read_text())
    theirs = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))

    def lost(mine: Any, known: Any, where: str) -> Iterator[str]:
        if isinstance(mine, dict):
            for key, value in mine.items():
                if key in known:
                    yield from lost(value, known[key], f"{where}.{key}")
                else:
                    yield f"{where}.{key}"
        elif isinstance(mine, list):
            assert len(mine) == len(known), where
            for index, value in enumerate(mine):
                yield from lost(value, known[index], f"{where}[{index}]")
        elif mine != known:
            yield f"{where}: {mine!r} became {known!r}"

    assert not list(lost(ours, theirs, path.name))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_panels_are_laid_out(path: Any) -> None:
    """No two lie upon each other, all explain themselves and ask the provisioned data source."""
    dashboard = json.loads(path.read_text())
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())
    uid = source["datasources"][0]["uid"]
    cells: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not covered & cells, panel["title"]
        assert max(x for x, _ in covered) < 24
        cells |= covered
        if panel["type"] != "row":
            assert panel["description"] and panel["datasource"]["uid"] == uid, panel["title"]
            assert all(target["datasource"]["uid"] == uid for target in panel["targets"])
