"""Control groups: where this process may make them, and that all but their consumer ends in them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.worker import control_group, stragglers
from svc.worker.control_group import ControlGroup, _own_folder, worker_group
from svc.worker.offspring import Process
from tests.support.workers import until

V2 = "35 24 0:29 {root} {mounted} rw,relatime shared:9 - cgroup2 cgroup2 rw"
V1 = "33 24 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"


@pytest.mark.parametrize(
    ("root", "mounted", "own", "folder"),
    [
        ("/", "/sys/fs/cgroup", "/", "/sys/fs/cgroup"),
        ("/", "/sys/fs/cgroup", "/system.slice/svc.service", "/sys/fs/cgroup/system.slice/svc.service"),
        ("/", "/sys/fs/cgroup/unified", "/a b", "/sys/fs/cgroup/unified/a b"),
        ("/docker/1f", "/sys/fs/cgroup", "/docker/1f", "/sys/fs/cgroup"),
        ("/docker/1f", "/sys/fs/cgroup", "/docker/1f/x", "/sys/fs/cgroup/x"),
        ("/docker/1f", "/sys/fs/cgroup", "/docker/1fff", None),
        ("/docker/1f", "/sys/fs/cgroup", "/elsewhere", None),
    ],
)
def test_the_own_group_is_found_below_the_mount_that_has_it(
    root: str, mounted: str, own: str, folder: str | None
):
    mounts = "\n".join([V1, V2.format(root=root, mounted=mounted)])
    found = _own_folder(mounts, f"4:memory:/elsewhere\n0::{own}\n")
    assert found == (None if folder is None else Path(folder))


@pytest.mark.parametrize("groups", ["", "4:memory:/x\n", "0::\n"])
def test_without_version_2_there_is_none(groups: str):
    assert _own_folder(V1, groups) is None
    assert _own_folder(V2.format(root="/", mounted="/sys/fs/cgroup"), groups) is None


@pytest.fixture
def home() -> Iterator[Path]:
    with worker_group() as path:
        if not path:
            pytest.skip("this process may make no control group")
        yield Path(path)
    assert not Path(path).exists()


def test_the_groups_of_ended_workers_are_removed_and_no_others(home: Path):
    with subprocess.Popen(["true"]) as ended:
        pass
    gone, alive = home.parent / f"svc-worker-{ended.pid}", home.parent / f"svc-worker-{os.getppid()}"
    (gone / "17").mkdir(parents=True)
    alive.mkdir()
    try:
        assert control_group.make_home() == str(home)
        assert alive.exists()
        assert not gone.exists()
    finally:
        alive.rmdir()


CONSUMER = """
import os, subprocess, sys
from svc.worker import control_group
from svc.worker.offspring import adopt_orphans
adopt_orphans()
control_group.join(sys.argv[1])
subprocess.run(["sh", "-c", "(setsid sh -c 'sleep 300 & wait' &) ; setsid sleep 300 &"])
print("ready", flush=True)
sys.stdin.readline()
control_group.end_others()
print("ended", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def consumer(home: Path) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", CONSUMER, str(home)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()
    ControlGroup(str(home), process.pid).end()
    assert [each for each in home.iterdir() if each.is_dir()] == []


def members(home: Path, consumer: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in (home / str(consumer.pid) / "cgroup.procs").read_text().split()]


def test_all_but_the_consumer_ends_also_if_it_has_detached_itself(
    home: Path, consumer: subprocess.Popen[str]
):
    assert consumer.stdin is not None
    assert consumer.stdout is not None
    until(lambda: len(members(home, consumer)) == 4)
    print(file=consumer.stdin, flush=True)
    assert consumer.stdout.readline() == "ended\n"
    assert members(home, consumer) == [consumer.pid]


def test_the_processes_of_a_killed_consumer_end_with_its_group(home: Path, consumer: subprocess.Popen[str]):
    until(lambda: len(members(home, consumer)) == 4)
    consumer.kill()
    consumer.wait()
    ControlGroup(str(home), consumer.pid).end()
    assert not (home / str(consumer.pid)).exists()


def test_a_group_with_a_process_to_spare_is_left_alone(home: Path):
    with subprocess.Popen(["sleep", "300"]) as spared:
        group = ControlGroup(str(home), os.getpid())
        group._folder.mkdir()
        (group._folder / "cgroup.procs").write_text(str(spared.pid))
        group.end_others([spared.pid])
        assert spared.poll() is None
        spared.kill()
    group.end()


def test_a_folder_that_is_no_control_group_does_no_harm(tmp_path: Path):
    control_group.join(str(tmp_path / "missing"))
    control_group.end_others()
    ControlGroup(str(tmp_path), 1).end()
    assert control_group._own == []


def test_stragglers_that_no_search_finds_end_by_the_group(home: Path, monkeypatch: pytest.MonkeyPatch):
    def blind(*_: object) -> dict[Process, int]:
        return {}

    monkeypatch.setattr("svc.worker.offspring.groups_below", blind)
    before = Path("/proc/self/cgroup").read_text().partition("0::")[2].splitlines()[0]
    control_group.join(str(home))
    try:
        straggler = subprocess.Popen(["sleep", "300"], start_new_session=True)
        stragglers.end_stragglers()
        assert straggler.poll() is not None
    finally:
        (home.parent / "cgroup.procs").write_text(str(os.getpid()))
        monkeypatch.setattr(control_group, "_own", [])
    assert Path("/proc/self/cgroup").read_text().partition("0::")[2].splitlines()[0] == before
