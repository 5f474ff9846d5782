"""The examples of docs/streams.md run, and do what the page says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import svc
from svc.broker.local import LocalQueue
from svc.client.client import BrokerClient
from svc.testing import local_client, run_jobs
from svc.worker import value_sender
from tests.support.readme import blocks
from tests.support.svc import ROOT

MODULE = "mytasks"
_TEXT = (ROOT / "docs" / "streams.md").read_text(encoding="utf-8")
_TASKS, _CLIENT, _READ_SOME = blocks(_TEXT, "python")


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalQueue]:
    (tmp_path / f"{MODULE}.py").write_text(_TASKS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    queue = LocalQueue()
    yield queue
    queue.close()
    sys.modules.pop(MODULE, None)


class _Running(BrokerClient):
    """A client whose jobs run before their handle is returned."""

    queue: LocalQueue

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        job = super().submit(*args, **kwargs)
        run_jobs(self.queue, [MODULE])
        return job


def test_the_client_of_the_page_reads_the_task_of_the_page(
    queue: LocalQueue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = local_client(queue)
    client.__class__ = _Running
    client.queue = queue  # type: ignore[attr-defined]
    monkeypatch.setattr(svc, "Client", lambda: client, raising=False)
    exec(_CLIENT, {})
    assert capsys.readouterr().out.split() == ["One", "Two", "The", "3"]


def test_the_asynchronous_generator_of_the_page_runs(queue: LocalQueue) -> None:
    job = local_client(queue).submit(f"{MODULE}:countdown", 3)
    run_jobs(queue, [MODULE])
    assert list(job.stream()) == [3, 2, 1]


def test_a_reader_goes_on_where_it_stopped(queue: LocalQueue) -> None:
    names: dict[str, Any] = {}
    exec(_READ_SOME, names)
    read_some: Callable[..., Any] = names["read_some"]
    job = local_client(queue).submit(f"{MODULE}:countdown", 5)
    run_jobs(queue, [MODULE])
    found, place = read_some(job, 2)
    assert (found, place) == ([5, 4], (2, 1))
    assert read_some(job, 9, *place) == ([3, 2, 1], (5, 1))


def test_the_bounds_on_the_page_are_those_of_the_code() -> None:
    assert value_sender.SEND_SECONDS == 0.05
    assert value_sender.WAITING_VALUES == 2000
    assert value_sender.WAITING_BYTES == 1 << 20
    assert "`--max-stream-value` | 1 MiB" in _TEXT
