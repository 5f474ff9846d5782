from __future__ import annotations

import os
from pathlib import Path

import pytest

from svc.worker.cpu import CpuCount, cpu_count


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_limits_it_is_the_host(tmp_path: Path) -> None:
    assert cpu_count(tmp_path, affinity=8, host=8) == CpuCount(8, "host")


def test_affinity_counts_below_the_host(tmp_path: Path) -> None:
    assert cpu_count(tmp_path, affinity=3, host=8) == CpuCount(3, "affinity")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("200000 100000", CpuCount(2, "cgroup")),
        ("150000 100000", CpuCount(2, "cgroup")),
        ("10000 100000", CpuCount(1, "cgroup")),
        ("max 100000", CpuCount(8, "host")),
        ("900000 100000", CpuCount(8, "host")),
        ("rubbish", CpuCount(8, "host")),
        ("100000 0", CpuCount(8, "host")),
    ],
)
def test_a_version_2_quota_is_rounded_up(tmp_path: Path, limit: str, expected: CpuCount) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": limit + "\n"})
    assert cpu_count(root, affinity=8, host=8) == expected


def test_the_tightest_of_all_parents_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a.slice/b.service\n",
        "sys/fs/cgroup/a.slice/cpu.max": "300000 100000",
        "sys/fs/cgroup/a.slice/b.service/cpu.max": "max 100000",
    }
    assert cpu_count(write(tmp_path, files), affinity=8, host=8) == CpuCount(3, "cgroup")


@pytest.mark.parametrize(
    ("quota", "expected"), [("250000", CpuCount(3, "cgroup")), ("-1", CpuCount(8, "host"))]
)
def test_a_version_1_quota_counts(tmp_path: Path, quota: str, expected: CpuCount) -> None:
    files = {
        "proc/self/cgroup": "3:memory:/docker/x\n2:cpu,cpuacct:/docker/x\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota,
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert cpu_count(write(tmp_path, files), affinity=8, host=8) == expected


def test_a_path_above_the_mount_is_read_at_the_mount(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/cpu.max": "100000 100000"}
    assert cpu_count(write(tmp_path, files), affinity=8, host=8) == CpuCount(1, "cgroup")


def test_affinity_below_the_quota_wins(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000"})
    assert cpu_count(root, affinity=2, host=8) == CpuCount(2, "affinity")


def test_on_this_host_it_is_at_least_1_and_at_most_what_the_scheduler_gives() -> None:
    assert 1 <= cpu_count().count <= len(os.sched_getaffinity(0))
