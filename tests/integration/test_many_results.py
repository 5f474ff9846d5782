"""`svc results --from` takes more ids than a command line holds, in memory that results do not add to."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from svc.codec import encode_result
from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from tests.support.manager import RunningManager, running_manager
from tests.support.svc import DEADLINE, environment

#: The form, the number of jobs, the bytes of each result: together they are at least 140 MiB.
FORMS = [("text", 150_000, 1000), ("json", 20_000, 8000)]
#: 150,000 ids and what is known of each take some 50 MiB beside the program's own 40.
MEMORY_MIB_MAX = 130
ORIGIN = "manyresultsab"
#: `ru_maxrss` would begin with the memory of the process that started this one.
MEASURED = """
import re, sys
from pathlib import Path
from svc.cli.program import run
code = run(sys.argv[1:])
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
print(code, peak, file=sys.stderr)
"""


def end_all(manager: RunningManager, jobs: int, size: int) -> None:
    result = encode_result("plain", "x" * size, None)
    with closing(manager.broker()) as client:
        for first in range(0, jobs, 10_000):
            client.submit(ORIGIN, [NewChunk(first, Terms("m:f"), [b"x"] * 10_000)])
    ended = 0
    with closing(manager.consumer()) as consumer:
        while ended < jobs:
            deliveries = consumer.lease(limit=1000, wait=timedelta(0)).grant.deliveries
            counts = [len(each.bodies) for each in deliveries]
            consumer.call(
                [
                    c.Ack(each.token, each.first, [result] * count, [0.1] * count)
                    for each, count in zip(deliveries, counts, strict=True)
                ]
            )
            ended += sum(counts)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(("form", "jobs", "size"), FORMS)
def test_very_many_ids_from_a_file_take_flat_memory(tmp_path: Path, form: str, jobs: int, size: int):
    ids = tmp_path / "ids"
    ids.write_text("".join(f"{ORIGIN}-{number}\n" for number in range(jobs)))
    key = tmp_path / "key"
    with running_manager(limits=Limits(max_queue_jobs=jobs)) as manager:
        end_all(manager, jobs, size)
        key.write_bytes(manager.authkey)
        key.chmod(0o600)
        env = environment(SVC_MANAGER=f"127.0.0.1:{manager.endpoint[1]}", SVC_AUTHKEY_FILE=str(key))
        flags = ["--json"] if form == "json" else []
        with (tmp_path / "out").open("w") as out:
            ended = subprocess.run(
                [sys.executable, "-c", MEASURED, "results", "--from", str(ids), "--quiet", *flags],
                env=env,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                timeout=2 * DEADLINE,
                check=True,
            )
    code, peak = ended.stderr.split()[-2:]
    assert (code, int(peak) < MEMORY_MIB_MAX) == ("0", True), ended.stderr
    with (tmp_path / "out").open() as out:
        marked = f'"id": "{ORIGIN}-' if form == "json" else f"{ORIGIN}-"
        assert sum(marked in line for line in out) == jobs
