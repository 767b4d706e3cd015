# SPDX-License-Identifier: Apache-2.0
"""Dockerfile, compose and Kubernetes files: valid by their schemas, and of one mind."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.tools import TREE, module, program
from vllm_qllm.config import PriorityConfig

COMPOSE = sorted((TREE / "deploy").glob("compose*.yaml"))
KUBERNETES = sorted((TREE / "deploy/kubernetes").glob("*.yaml"))
# The oldest and the newest version that the checker knows schemas of.
VERSIONS = ("1.25.0", "1.37.0")
# Kinds whose schemas are not Kubernetes' own: nothing here can check them by schema.
FOREIGN = {"PodMonitor", "Kustomization"}


def document(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def manifests() -> dict[str, Any]:
    """What is applied to a cluster, by kind."""
    return {document(path)["kind"]: document(path) for path in KUBERNETES}


def container() -> Any:
    return manifests()["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def instructions(name: str) -> list[str]:
    """What follows an instruction of the Dockerfile, wherever it is used."""
    text = (TREE / "Dockerfile").read_text().replace("\\\n", " ")
    return re.findall(rf"^{name} +(.+)$", text, re.MULTILINE)


def test_make_test_deploy_runs_what_it_names() -> None:
    """Given a directory and a file in it, pytest runs what it finds in the directory alone."""
    told = subprocess.run(["make", "-n", "test-deploy"], cwd=TREE, capture_output=True, text=True)
    words = told.stdout.replace("\\\n", " ").partition("-m pytest ")[2].split("\n")[0].split()
    named = {TREE / word for word in words}
    assert {TREE / "tests/deploy" / name for name in ("scaling.py", "images.py")} <= named
    assert named >= set((TREE / "tests/deploy").glob("test_*.py"))
    assert all(path.exists() and not named & set(path.parents) for path in named)


def test_the_linter_has_no_complaint_about_the_dockerfile() -> None:
    command = [program("hadolint"), "--failure-threshold", "style", "Dockerfile"]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_images_run_as_nobody_special_and_say_how_they_are() -> None:
    # gpu-build, gpu, then cpu.
    assert instructions("USER") == ["0", "0", "10001:10001", "10001:10001"]
    assert len(instructions("HEALTHCHECK")) == 2  # one for each target
    assert instructions("ENTRYPOINT") == ['["vllm", "serve"]'] * 2
    stages = [line.split(" AS ")[1] for line in instructions("FROM")]
    assert {"cpu", "gpu"} <= set(stages) and stages[-1] == "cpu"
    assert sum("vllm_qllm.verify" in command for command in instructions("RUN")) == 2


def test_the_base_image_is_that_of_the_supported_vllm() -> None:
    from vllm_qllm.contract import SUPPORTED

    assert f"VLLM_IMAGE=vllm/vllm-openai:v{SUPPORTED}" in instructions("ARG")


def test_only_what_is_copied_enters_an_image() -> None:
    lines = (TREE / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "all is left out, unless it is named"
    sources = {
        source
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }
    named = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert named == {source.partition("/")[0] for source in sources}
    assert all((TREE / source).exists() for source in sources)


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_files_are_valid(path: Path) -> None:
    done = module("check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_check_can_fail(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((TREE / "deploy/compose.yaml").read_text().replace("command:", "comand:"))
    done = module("check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(wrong))
    assert done.returncode == 1 and "comand" in done.stdout


def test_what_compose_mounts_is_there() -> None:
    mounted = {
        volume.partition(":")[0]
        for service in document(TREE / "deploy/compose.yaml")["services"].values()
        for volume in service["volumes"]
        if volume.startswith("./")
    }
    assert len(mounted) == 5
    assert all((TREE / "deploy" / source).is_dir() for source in mounted)


def test_compose_nginx_and_prometheus_know_the_same_replicas() -> None:
    services = document(TREE / "deploy/compose.yaml")["services"]
    replicas = {f"{name}:8000" for name in services if name.startswith("vllm-")}
    assert len(replicas) == 2
    assert set(services["nginx"]["environment"]["REPLICAS"].split()) == replicas
    scraped = document(TREE / "deploy/prometheus/replicas.yml")
    assert {target for group in scraped for target in group["targets"]} == replicas
    assert document(TREE / "deploy/compose.gpu.yaml")["services"].keys() == {
        address.partition(":")[0] for address in replicas
    }


def test_a_replica_has_longer_to_end_than_it_drains() -> None:
    services = document(TREE / "deploy/compose.yaml")["services"]
    drain = re.search(r"--shutdown-timeout=\$\{\w+:-(\d+)\}", str(services["vllm-a"]["command"]))
    assert drain and int(services["vllm-a"]["stop_grace_period"].rstrip("s")) > int(drain[1])
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    (asked,) = (arg for arg in container()["args"] if arg.startswith("--shutdown-timeout="))
    before = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > int(asked.partition("=")[2]) + before


def test_replicas_read_their_classes_from_one_file_wherever_they_run() -> None:
    services = document(TREE / "deploy/compose.yaml")["services"]
    kustomization, pod = manifests()["Kustomization"], manifests()["Deployment"]["spec"]["template"]
    for command in (services["vllm-a"]["command"], container()["args"]):
        assert "--priority-config=/etc/qllm/config.json" in command
    for name in ("vllm-a", "vllm-b"):
        assert "./priority:/etc/qllm:ro" in services[name]["volumes"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    (projected,) = (v["projected"] for v in pod["spec"]["volumes"] if v["name"] == "priority")
    assert mounted["priority"] == "/etc/qllm"
    generated = [{"name": "priority", "files": ["config.json"]}]
    assert kustomization["configMapGenerator"] == generated
    assert projected["sources"][0] == {"configMap": {"name": "priority"}}
    # Both, as kustomize reads no file outside its directory.
    files = [TREE / "deploy" / where / "config.json" for where in ("priority", "kubernetes")]
    ours, theirs = (json.loads(file.read_text()) for file in files)
    assert ours == theirs


def test_objectives_of_the_status_page_are_those_of_the_alerts() -> None:
    text = (TREE / "deploy/prometheus/objectives.yml").read_text()
    bounds = dict(re.findall(r'_bucket\{class="(\w+)", le="([\d.]+)"\}', text))
    (group,) = (g for g in yaml.safe_load(text)["groups"] if g["name"] == "qllm-objectives")
    shares = {rule["labels"]["class"]: rule["expr"] for rule in group["rules"]}
    config = PriorityConfig.load(TREE / "deploy/priority/config.json", "strict")
    told = {cls.name: (cls.slo_ttft_ms, cls.slo_share) for cls in config.classes}
    assert told == {
        cls: (1000 * float(bounds[cls]), float(re.findall(r"[\d.]+", share)[0]))
        for cls, share in shares.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_files_are_valid(version: str) -> None:
    ours = [str(path) for path in KUBERNETES if document(path)["kind"] not in FOREIGN]
    assert len(ours) == 4
    done = module("kubernetes_validate", "--strict", "-k", version, *ours)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and said.count(" passed for resource") == len(ours), said


def test_the_kubernetes_check_can_fail(tmp_path: Path) -> None:
    wrong = tmp_path / "deployment.yaml"
    text = (TREE / "deploy/kubernetes/deployment.yaml").read_text()
    wrong.write_text(text.replace("readinessProbe", "readynessProbe"))
    done = module("kubernetes_validate", "--strict", str(wrong))
    assert done.returncode == 1 and "readynessProbe" in done.stdout + done.stderr


def test_kubernetes_files_fit_each_other() -> None:
    of_kind = manifests()
    deployment, service = of_kind["Deployment"], of_kind["Service"]
    pods = deployment["spec"]["template"]["metadata"]["labels"]
    for chooser in (deployment, of_kind["PodDisruptionBudget"], of_kind["PodMonitor"]):
        assert chooser["spec"]["selector"]["matchLabels"] == pods
    assert service["spec"]["selector"] == pods
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": 8000}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports.keys()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"] == {"path": "/health", "port": "http"}
    # The user is that of the image.
    security = deployment["spec"]["template"]["spec"]["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == instructions("USER")[-1]
    kustomization = of_kind["Kustomization"]
    files = {path.name for path in KUBERNETES} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
    assert {image["name"] for image in kustomization["images"]} == {container()["image"]}
    assert {
        m["metadata"].get("namespace", kustomization["namespace"])
        for m in of_kind.values()
        if "metadata" in m
    } == {kustomization["namespace"]}


def test_the_pod_monitor_gives_replicas_the_job_that_rules_name() -> None:
    (endpoint,) = manifests()["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    (relabeling,) = endpoint["relabelings"]
    (scrape,) = document(TREE / "deploy/prometheus/prometheus.yml")["scrape_configs"]
    assert relabeling == {"targetLabel": "job", "replacement": scrape["job_name"]}
