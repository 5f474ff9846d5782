"""The marker of a manager on a stream: servers that have lost their disks are no empty queue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from svc.app import journals
from svc.app.journals import open_replication
from svc.errors import JournalError
from svc.settings import ManagerSettings
from tests.support.nats_logs import address_of
from tests.support.nats_servers import running_nats
from tests.support.workers import until


def test_a_stream_that_was_made_once_and_is_gone_is_not_made_again(tmp_path: Path):
    marker = tmp_path / "marker"
    with running_nats(tmp_path / "nats") as server:
        stream = address_of(server, "q")
        settings = ManagerSettings(
            journal=stream, journal_marker=marker, journal_replicas=1, mirror=tmp_path / "mirror"
        )
        for _ in range(2):
            open_replication(settings, stream).close()
            assert str(stream) in marker.read_text()
        server.kill(0)
        server.restart(0, empty=True)
        with pytest.raises(JournalError, match="there is no stream q; see that the name is right"):
            open_replication(settings, stream)
        marker.unlink()
        open_replication(settings, stream).close()


def test_a_marker_that_cannot_be_written_ends_the_start(tmp_path: Path):
    with running_nats(tmp_path / "nats") as server:
        stream = address_of(server, "q")
        settings = ManagerSettings(
            journal=stream,
            journal_marker=tmp_path / "missing/marker",
            journal_replicas=1,
            mirror=tmp_path / "mirror",
        )
        with pytest.raises(JournalError, match=r"missing/marker \(--journal-marker\) cannot be written"):
            open_replication(settings, stream)


def test_a_start_says_that_it_waits_for_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journals, "TELL_SECONDS", 0.1)
    with running_nats(tmp_path / "nats") as server, ThreadPoolExecutor() as threads, capture_logs() as logs:
        stream = address_of(server, "q")
        settings = ManagerSettings(journal=stream, journal_replicas=1, mirror=tmp_path / "mirror")
        server.kill(0)
        opening = threads.submit(open_replication, settings, stream)
        until(
            lambda: [each for each in logs if each["event"] == "journal_awaited"], what="a word of the wait"
        )
        server.restart(0)
        opening.result(60).close()
    (told,) = [each for each in logs if each["event"] == "journal_awaited"]
    assert told["servers"] == ",".join(map(str, stream.servers))
