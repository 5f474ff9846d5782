"""A worker's own figures, read back from the exposition."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from svc.telemetry.cgroup import Memory, read_memory
from svc.telemetry.label_values import OTHER
from svc.telemetry.worker_metrics import WorkerSnapshot, worker_exposition

SNAPSHOT = WorkerSnapshot(
    worker="w1",
    host="h1",
    version="0.1.0",
    start_method="forkserver",
    consumers={"busy": 3, "idle": 1},
    busy_seconds=12.5,
    restarts={"crashed": 2, "by the moon": 1},
    cpu_cores=2,
    cpu_source="cgroup",
    reconnects=1,
    draining=True,
    round_trip=0.02,
)


def test_a_worker_exports_its_snapshot():
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(worker_exposition(SNAPSHOT).decode())
        for sample in family.samples
    }

    def of(name: str, **labels: str) -> float | None:
        return samples.get((name, frozenset({"worker": "w1", **labels}.items())))

    assert of("svc_worker_info", host="h1", version="0.1.0", start_method="forkserver") == 1
    assert of("svc_worker_consumers", state="busy") == 3
    assert of("svc_worker_consumers", state="starting") == 0
    assert of("svc_worker_consumer_busy_seconds_total") == 12.5
    assert of("svc_worker_consumer_restarts_total", reason="crashed") == 2
    assert of("svc_worker_consumer_restarts_total", reason=OTHER) == 1
    assert of("svc_worker_cpu_limit_cores", source="cgroup") == 2
    assert of("svc_worker_manager_reconnects_total") == 1
    assert of("svc_worker_draining") == 1
    assert of("svc_worker_round_trip_seconds") == 0.02


@pytest.mark.parametrize(
    ("group", "folder", "files", "memory"),
    [
        ("0::/\n", ".", {"memory.current": "1048576\n", "memory.max": "max\n"}, Memory(1048576, None)),
        ("0::/a/b\n", "a/b", {"memory.current": "5\n", "memory.max": "9\n"}, Memory(5, 9)),
        ("0::/host/only\n", ".", {"memory.current": "5\n", "memory.max": "9\n"}, Memory(5, 9)),
        (
            "4:memory:/a\n3:cpu:/b\n",
            "memory/a",
            {"memory.usage_in_bytes": "5\n", "memory.limit_in_bytes": f"{2**63 - 4096}\n"},
            Memory(5, None),
        ),
        (
            "4:memory:/host/only\n",
            "memory",
            {"memory.usage_in_bytes": "5\n", "memory.limit_in_bytes": "9\n"},
            Memory(5, 9),
        ),
        ("", ".", {}, Memory(None, None)),
    ],
)
def test_memory_is_read_from_the_control_group(tmp_path, group, folder, files, memory):
    process = tmp_path / "cgroup"
    process.write_text(group)
    place = tmp_path / "mount" / folder
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / name).write_text(content)
    assert read_memory(tmp_path / "mount", process) == memory


def test_memory_of_this_very_process_can_be_asked_for():
    used, limit = read_memory()
    assert used is None or used > 0
    assert limit is None or limit > 0
