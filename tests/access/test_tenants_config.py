# SPDX-License-Identifier: Apache-2.0
"""A tenants file is taken whole or refused with the field, the value and what is allowed."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from vllm_qllm.access.key import hash_of
from vllm_qllm.access.tenants_config import TenantsConfig
from vllm_qllm.access.tenants_file import TenantsFile
from vllm_qllm.config import ConfigError, PriorityClass, PriorityConfig

CONFIG = PriorityConfig()
LS, BE = "latency_sensitive", "best_effort"
KEY = "qllm-in-plain-text"
HASH = hash_of(KEY)


def tenant(**fields: Any) -> dict[str, Any]:
    """A file with one tenant, of these fields."""
    return {"tenants": {"a": {"classes": {LS: {}}} | fields}}


def limits(**fields: Any) -> dict[str, Any]:
    """A file with one tenant, of these limits."""
    return tenant(classes={LS: fields})


LIMITS = f"tenants.a.classes.{LS}"
# field in the message, the file, the value in the message, a word on what is allowed
BAD: list[tuple[str, Any, Any, str]] = [
    *(("tenants", {"tenants": v}, v, "dictionary") for v in (None, 3, "a", [])),
    ("tenants", {}, {}, "required"),
    *(("the whole", v, v, "dictionary") for v in (None, 3, "a", [])),
    *(("tenants.a", {"tenants": {"a": v}}, v, "dictionary") for v in (None, 3, [])),
    *((f"tenants.{v}", {"tenants": {v: {}}}, v, "pattern") for v in ("", "a b", "ä", "a" * 64)),
    ("tenants.none", {"tenants": {"none": {"classes": {LS: {}}}}}, "none", "other names"),
    ("tenants.a.classes", tenant(classes={"none": {}}), "none", "other names"),
    *(("tenants.a.classes", tenant(classes=v), v, "dictionary") for v in (None, [LS], LS)),
    ("tenants.a.classes", tenant(classes={}), {}, "at least 1"),
    ("tenants.a.classes", tenant(classes={"fast": {}}), "fast", f"{LS}, {BE}"),
    *(("tenants.a.default_class", tenant(default_class=v), v, LS) for v in (BE, "", "fast")),
    *(("tenants.a.above", tenant(above=v), v, "'refuse' or 'lower'") for v in (None, "", 1)),
    *(("tenants.a.operator", tenant(operator=v), v, "boolean") for v in (None, "yes", 1)),
    *(
        (f"{LIMITS}.max_concurrent", limits(max_concurrent=v), v, "integer")
        for v in ("1", 1.5, True, [])
    ),
    *((f"{LIMITS}.max_concurrent", limits(max_concurrent=v), v, "1") for v in (0, -1, 10**7)),
    *(
        (f"{LIMITS}.requests_per_second", limits(requests_per_second=v), v, "number")
        for v in ("1", True, float("nan"), float("inf"))
    ),
    *(
        (f"{LIMITS}.requests_per_second", limits(requests_per_second=v), v, "than")
        for v in (0, -1.0, 1e9)
    ),
    (f"{LIMITS}.burst", limits(burst=3), 3, "requests_per_second"),
    (f"{LIMITS}.min_priority", limits(min_priority=1), 1, "of that class"),
    (f"{LIMITS}.min_priority", limits(min_priority=2**63), 2**63, "less than"),
    ("max_in_flight", tenant() | {"max_in_flight": {"fast": 3}}, "fast", f"{LS}, {BE}"),
    (f"max_in_flight.{LS}", tenant() | {"max_in_flight": {LS: 0}}, 0, "equal to 1"),
    ("max_body_bytes", tenant() | {"max_body_bytes": 10}, 10, "1024"),
    ("max_header_bytes", tenant() | {"max_header_bytes": "1k"}, "1k", "integer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "data", "value", "allowed"), BAD, ids=[f"{f}={v!r:.20}" for f, _, v, _ in BAD]
)
def test_names_field_value_and_what_is_allowed(
    tmp_path: Path, field: str, data: Any, value: Any, allowed: str
) -> None:
    path = tmp_path / "tenants.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError) as caught:
        TenantsConfig.load(path, CONFIG)
    message = str(caught.value)
    assert str(path) in message and field in message
    assert (value if isinstance(value, str) else repr(value)) in message
    assert allowed in message.partition("allowed:")[2]


@pytest.mark.parametrize(
    "data",
    [tenant(keys=[KEY]), tenant(keys=KEY), tenant(keys={KEY: 1}), tenant() | {"gateway": KEY}],
)
def test_a_key_in_plain_text_is_refused_and_not_shown(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "tenants.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError) as caught:
        TenantsConfig.load(path, CONFIG)
    assert KEY not in str(caught.value)
    assert "keys" in str(caught.value) or "gateway" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        tenant(keys=[HASH, HASH]),
        tenant(keys=[HASH]) | {"gateway": HASH},
        {"tenants": {n: {"classes": {LS: {}}, "keys": [HASH]} for n in "ab"}},
    ],
)
def test_a_key_has_one_owner(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "tenants.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="twice"):
        TenantsConfig.load(path, CONFIG)


def test_a_server_with_a_class_none_has_no_tenants(tmp_path: Path) -> None:
    path = tmp_path / "tenants.json"
    path.write_text(json.dumps(tenant()))
    none = PriorityConfig(classes=(*CONFIG.classes[:1], PriorityClass("none")))
    with pytest.raises(ConfigError, match="has a class 'none'; allowed: other names"):
        TenantsConfig.load(path, none)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"tenants": {}, "tenants": {}}', "'tenants' is given twice"),
        (b'{"tenants": {"a": {"classes": {}, "clases": {}}}}', "tenants.a"),
        (b'{"tenants": {}, "tenant": {}}', "tenant is not known"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "tenants.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=word):
        TenantsConfig.load(path, CONFIG)
    with pytest.raises(ConfigError, match="nowhere"):
        TenantsConfig.load(tmp_path / "nowhere", CONFIG)


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    path, outcomes, now = tmp_path / "tenants.json", [], [0.0]
    reads = 0

    def load() -> TenantsConfig:
        nonlocal reads
        reads += 1
        return TenantsConfig.load(path, CONFIG)

    def write(data: Any) -> None:
        draft = tmp_path / "draft"
        draft.write_text(json.dumps(data))
        os.replace(draft, path)

    write(tenant())
    file = TenantsFile(path, load, outcomes.append, lambda: now[0], interval=1.0)
    first = file.current()
    write(tenant(operator=True))
    now[0] = 0.9
    assert file.current() is first and reads == 1
    now[0] = 1.0
    assert file.current().tenants["a"].operator
    write(tenant(operator=3))
    for now[0] in (2.0, 3.0, 4.0):
        assert file.current().tenants["a"].operator
    assert reads == 3 and outcomes == ["loaded", "refused"]
    path.unlink()
    now[0] = 5.0
    assert file.current().tenants["a"].operator
    write(tenant())
    now[0] = 6.0
    assert file.current() == first
    assert outcomes == ["loaded", "refused", "refused", "loaded"]


def test_a_volume_of_kubernetes_that_changes_is_noticed(tmp_path: Path) -> None:
    """The file is a link to ..data/tenants.json, and ..data one to the latest directory."""
    path, now = tmp_path / "tenants.json", [0.0]

    def project(version: int, data: Any) -> None:
        directory, draft = tmp_path / f"..{version}", tmp_path / "..data_tmp"
        directory.mkdir()
        (directory / "tenants.json").write_text(json.dumps(data))
        os.utime(directory / "tenants.json", (0, 0))
        draft.symlink_to(directory.name)
        os.replace(draft, tmp_path / "..data")

    project(1, tenant())
    path.symlink_to("..data/tenants.json")
    file = TenantsFile(
        path, lambda: TenantsConfig.load(path, CONFIG), lambda _: None, lambda: now[0]
    )
    assert not file.current().tenants["a"].operator
    project(2, tenant(operator=True))
    now[0] = 1.0
    assert file.current().tenants["a"].operator


def other_than_files(directory: Path) -> list[Path]:
    """What a path can be that is no file of a reasonable size."""
    (directory / "directory").mkdir()
    os.mkfifo(directory / "pipe")
    (directory / "loop").symlink_to("loop")
    (directory / "dangling").symlink_to("nowhere")
    (directory / "to the pipe").symlink_to("pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(directory / "socket"))
    listening.close()
    with (directory / "large").open("wb") as file:
        file.truncate(2**40)
    devices = [Path("/dev/zero"), Path("/dev/tty"), Path("/proc/self/mem")]
    return [*(path for path in directory.iterdir()), *devices, Path("/dev/stdin")]


def test_nothing_but_a_file_is_read_nor_waited_for(tmp_path: Path) -> None:
    """At the start; also the priority configuration, which an operator names by a path, too."""
    directory = tmp_path / "d"
    directory.mkdir()
    for path in other_than_files(directory):
        with pytest.raises(ConfigError, match=re.escape(f"tenants file {path}: ")):
            TenantsConfig.load(path, CONFIG)
        with pytest.raises(ConfigError, match=r"cannot read .* allowed: JSON text"):
            PriorityConfig.load(str(path), "strict")


def test_what_comes_in_its_place_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While the server runs: it goes on with the tenants that it has, and says so."""
    path, outcomes, now = tmp_path / "tenants.json", [], [0.0]
    path.write_text(json.dumps(tenant()))
    directory = tmp_path / "d"
    directory.mkdir()
    load = lambda: TenantsConfig.load(path, CONFIG)  # noqa: E731
    file = TenantsFile(path, load, outcomes.append, lambda: now[0], interval=1.0)
    first = file.current()
    for other in other_than_files(directory):
        path.unlink(missing_ok=True)
        path.symlink_to(other)
        for _ in range(2):
            now[0] += 1
            assert file.current() is first
    assert set(outcomes) == {"refused"} and len(outcomes) >= 9
    assert "The tenants stay as they were: " in caplog.text
    path.unlink()
    path.write_text(json.dumps(tenant(operator=True)))
    now[0] += 1
    assert file.current().tenants["a"].operator
