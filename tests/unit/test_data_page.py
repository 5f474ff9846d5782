"""The examples of docs/data.md run as a task and its client, and do what the page says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import svc
from svc.domain.limits import Limits
from svc.testing import LocalQueue, local_client, run_jobs
from tests.support.readme import blocks
from tests.support.svc import ROOT

TASK, PROGRAM = blocks((ROOT / "docs" / "data.md").read_text(encoding="utf-8"), "python")


def test_a_file_and_bytes_go_to_a_task_and_a_file_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scans.py").write_text(TASK, encoding="utf-8")
    (tmp_path / "scan.tif").write_bytes(b"II*\0" + bytes(500_000))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    queue = LocalQueue(limits=Limits(max_job_bytes=100_000))
    client = local_client(queue)
    submit, wait, *rest = PROGRAM.splitlines()
    names = {"svc": svc, "client": client, "big_bytes": b"RAW!" * 100_000}

    exec(submit, names)  # the page is this repository's own
    assert run_jobs(queue, ["scans"]) == 1
    exec("\n".join([wait, *rest]), names)

    assert isinstance(names["report"], svc.File)
    copy = tmp_path / "report-copy.bin"
    assert copy.read_bytes() == (tmp_path / "report.bin").read_bytes() == b"II*\0RAW!"
    queue.close()
    sys.modules.pop("scans", None)
