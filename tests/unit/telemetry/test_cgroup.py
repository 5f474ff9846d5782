"""How near the control groups of a process are to their limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from svc.telemetry.cgroup import MemoryUse, read_tightest

V1_NO_LIMIT = "9223372036854771712"


def groups(folder: Path, process: str, **files: str) -> MemoryUse | None:
    """Write the system's files of control groups; *files* have `__` for a slash and `_s_` for a dot."""
    (folder / "process").write_text(process)
    for name, content in files.items():
        path = folder / "fs" / name.replace("__", "/").replace("_s_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return read_tightest(folder / "fs", folder / "process")


def test_version_2_counts_what_cannot_be_taken_back(tmp_path):
    found = groups(
        tmp_path,
        "0::/\n",
        memory_s_current="900",
        memory_s_max="1000",
        memory_s_stat="anon 300\nfile 500\nkernel 60\nshmem 20\nsock 7\ninactive_anon 300",
    )
    assert found == MemoryUse(327, 1000)


def test_version_1_counts_the_groups_below_too(tmp_path):
    found = groups(
        tmp_path,
        "3:cpu:/a\n5:memory:/a\n",
        memory__a__memory_s_usage_in_bytes="900",
        memory__a__memory_s_limit_in_bytes="1000",
        memory__a__memory_s_stat="cache 500\nrss 100\ntotal_cache 600\ntotal_rss 300\ntotal_shmem 20",
    )
    assert found == MemoryUse(320, 1000)


def test_the_group_that_is_nearest_to_its_limit_counts_also_if_it_is_above(tmp_path):
    found = groups(
        tmp_path,
        "0::/pod/own\n",
        pod__own__memory_s_max="1000",
        pod__own__memory_s_stat="anon 300",
        pod__memory_s_max="2000",
        pod__memory_s_stat="anon 1500",
    )
    assert found == MemoryUse(1500, 2000)


def test_in_a_container_of_version_1_its_group_is_the_root_of_the_mount(tmp_path):
    found = groups(
        tmp_path,
        "5:memory:/docker/0123\n",
        memory__memory_s_limit_in_bytes="1000",
        memory__memory_s_stat="total_rss 10\ntotal_shmem 0",
    )
    assert found == MemoryUse(10, 1000)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"memory_s_max": "max", "memory_s_stat": "anon 1"},
        {"memory__memory_s_limit_in_bytes": V1_NO_LIMIT, "memory__memory_s_stat": "total_rss 1"},
    ],
    ids=["nothing", "version 2", "version 1"],
)
def test_no_limit_is_none(tmp_path, files):
    assert groups(tmp_path, "0::/\n5:memory:/\n", **files) is None
