# SPDX-License-Identifier: Apache-2.0
"""Nothing that ``vllm_qllm.keys`` does is lost, and no server is left with a file it cannot use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_qllm import keys
from vllm_qllm.access import replacement
from vllm_qllm.access.tenants_config import TenantsConfig
from vllm_qllm.access.tenants_json import TenantsJson
from vllm_qllm.config import PriorityConfig

LS, BE = "latency_sensitive", "best_effort"
CONFIG = '{"classes": [{"name": "chat", "max_priority": 0}, {"name": "batch"}]}'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tenants file with one tenant, which has one key."""
    path = tmp_path / "tenants.json"
    assert keys.main(["add", "web", "--file", str(path), "--classes", f"{LS},{BE}"]) == 0
    return path


def hashes(file: Path, tenant: str = "web") -> list[str]:
    return list(TenantsConfig.load(file).tenants[tenant].keys)


def test_what_many_do_at_a_time_is_all_done(file: Path) -> None:
    """Each reads the file, changes it and puts it back: none between the steps of another."""
    (first,) = hashes(file)

    def work(number: int) -> int:
        add = ["add", "web", "--file", str(file)]
        if number == 7:
            return keys.main(["revoke", "web", first, "--file", str(file)])
        if number % 3 == 0:
            add = ["add", f"t{number}", "--file", str(file), "--classes", BE]
        return keys.main(add)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(40))) == {0}
    tenants_config = TenantsConfig.load(file)
    assert len(tenants_config.tenants) == 1 + 14
    assert len(hashes(file)) == 25 and first not in hashes(file)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_processes_wait_for_each_other(file: Path) -> None:
    script = (
        "import sys\n"
        "from vllm_qllm.access.tenants_json import TenantsJson\n"
        "with TenantsJson.changed(sys.argv[1]) as content:\n"
        "    print('in', flush=True)\n"
        "    sys.stdin.read()\n"
        "    content.tenants['slow'] = {'classes': {'best_effort': {}}}\n"
    )
    command = [sys.executable, "-c", script, str(file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with ThreadPoolExecutor(1) as pool:
            mine = pool.submit(keys.main, ["add", "web", "--file", str(file)])
            with pytest.raises(TimeoutError):
                mine.result(0.2)
            other.communicate("")
            assert mine.result(20) == 0
    assert {*TenantsConfig.load(file).tenants} == {"web", "slow"} and len(hashes(file)) == 2


def test_nobody_is_waited_for_without_end(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replacement, "PATIENCE", 0.1)
    with TenantsJson.changed(file):
        assert keys.main(["add", "web", "--file", str(file)]) == 1
    assert "another program changes files in" in capsys.readouterr().err


names = st.sampled_from(["web", "new", "none", "", "a b", "ä", "x" * 64, "-", LS])
classes = st.lists(
    st.sampled_from([LS, BE, "best_efort", "chat", "none", "", " ", "Fast", "a-b", "x" * 64]),
    max_size=3,
).map(",".join)


@settings(max_examples=60, deadline=None)
@given(
    name=names,
    given_classes=st.none() | classes,
    default=st.none() | st.sampled_from([LS, BE, "fast", ""]),
    config=st.none() | st.just(CONFIG),
)
def test_no_command_makes_a_file_that_no_server_takes(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    given_classes: str | None,
    default: str | None,
    config: str | None,
) -> None:
    file = tmp_path_factory.mktemp("keys") / "tenants.json"
    for there in (False, True):
        before = file.read_text() if there else None
        asked = ["add", "--file", str(file)]
        asked += [f"--classes={given_classes}"] if given_classes is not None else []
        asked += [f"--default-class={default}"] if default is not None else []
        asked += [f"--priority-config={config}"] if config else []
        if keys.main([*asked, "--", name]) == 0:
            given = PriorityConfig.from_dict(json.loads(config)) if config else None
            tenants_config = TenantsConfig.load(file, given)
            assert tenants_config.tenants[name].keys
            assert "best_efort" not in tenants_config.tenants[name].classes or config
        else:
            assert (file.read_text() if file.exists() else None) == before
        if not there:
            file.write_text(json.dumps({"tenants": {"web": {"classes": {BE: {}}}}}))


def test_a_slip_of_the_pen_is_asked_about(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add = ["add", "jobs", "--file", str(file), "--classes"]
    assert keys.main([*add, "best_efort"]) == 1
    assert "allowed: best_effort" in capsys.readouterr().err
    assert keys.main([*add, "batch"]) == 0  # which a server may well have
    assert keys.main(["list", "--file", str(file), "--priority-config", CONFIG]) == 1
    assert "names 'latency_sensitive'; allowed: chat, batch" in capsys.readouterr().err


@pytest.mark.parametrize("tenant", ["web", "nobody"])
@pytest.mark.parametrize("start", ["sha256:zz", "zz", "sha256:" + "0" * 64])
def test_what_revokes_nothing_fails(file: Path, tenant: str, start: str) -> None:
    before = file.read_text()
    assert keys.main(["revoke", tenant, start, "--file", str(file)]) == 1
    assert file.read_text() == before
    assert keys.main(["revoke", tenant, start, "--file", f"{file}.gone"]) == 1
    assert not Path(f"{file}.gone").exists()


def test_a_file_that_no_server_takes_revokes_nothing(file: Path) -> None:
    """The server would go on with the keys that it has, this one among them."""
    data = json.loads(file.read_text())
    data["tenants"]["web"]["default_class"] = "fast"
    file.write_text(json.dumps(data))
    assert keys.main(["revoke", "web", "sha256:", "--file", str(file)]) == 1
    data["tenants"]["web"]["default_class"] = LS
    file.write_text(json.dumps(data))
    of_server = ["--priority-config", CONFIG]
    assert keys.main(["revoke", "web", "sha256:", "--file", str(file), *of_server]) == 1
    assert keys.main(["revoke", "web", "sha256:", "--file", str(file)]) == 0
    assert hashes(file) == []


def test_who_may_read_it_may_go_on(file: Path) -> None:
    os.chmod(file, 0o640)
    labelled = True
    try:
        os.setxattr(file, "user.label", b"a")
    except OSError:  # not every file system has them
        labelled = False
    link = file.with_name("link")
    link.symlink_to(file.name)
    if os.geteuid() == 0:
        os.chown(file, 12345, 23456)
    before = file.stat()
    assert keys.main(["add", "web", "--file", str(link)]) == 0
    after = file.stat()
    assert link.is_symlink() and before.st_ino != after.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert not labelled or os.getxattr(file, "user.label") == b"a"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to somebody else")
@pytest.mark.parametrize(("mode", "status"), [(0o640, 1), (0o644, 0)])
def test_who_cannot_leave_it_to_its_owner_leaves_it_as_it_is(
    file: Path, mode: int, status: int
) -> None:
    """Unless everybody may read it."""
    os.chown(file, 12345, 65534)
    os.chmod(file, mode)
    for directory in (file.parent, *file.parent.parents[:3]):
        os.chmod(directory, 0o777)
    before = file.read_text(), file.stat()
    script = (
        "import os, sys\n"
        "from vllm_qllm import keys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(keys.main(['revoke', 'web', 'sha256:', '--file', sys.argv[1]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    if status:
        assert "belongs to user 12345 and group 65534" in done.stderr
        assert (file.read_text(), file.stat()) == before
    else:
        assert hashes(file) == [] and file.stat().st_mode & 0o777 == mode
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_file_with_two_names_is_left_alone(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.link(file, file.with_name("other"))
    assert keys.main(["revoke", "web", "sha256:", "--file", str(file)]) == 1
    assert "other names" in capsys.readouterr().err
    assert len(hashes(file)) == 1


def special(path: Path) -> dict[str, Any]:
    """What a path can be that is no file."""
    (path / "directory").mkdir()
    os.mkfifo(path / "pipe")
    (path / "loop").symlink_to("loop")
    (path / "dangling").symlink_to("nowhere")
    with (path / "large").open("wb") as file:
        file.truncate(2**40)
    found = {name: path / name for name in ("directory", "pipe", "loop", "dangling", "large")}
    return found | {"zero": Path("/dev/zero"), "null": Path("/dev/null"), "tty": Path("/dev/tty")}


@pytest.mark.parametrize("kind", ["directory", "pipe", "loop", "dangling", "large", "zero", "tty"])
def test_what_is_no_file_is_no_tenants_file(tmp_path: Path, kind: str) -> None:
    path = str(special(tmp_path)[kind])
    assert keys.main(["list", "--file", path]) == 1
    assert keys.main(["revoke", "web", "sha256:", "--file", path]) == 1
    if kind != "dangling":  # a new file is made where the link points
        assert keys.main(["add", "web", "--file", path, "--classes", BE]) == 1
