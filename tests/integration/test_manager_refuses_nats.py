"""`svc manager` on servers or a stream with a fault: an exit code, a line that says why, nothing written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from svc.errors import AuthenticationFailed, ConfigurationError, Conflict, Forbidden, JournalError
from svc.server.journal.jetstream.stream_form import BUCKET_SUFFIX, NO_STREAM, new_stream
from tests.support.managers import managers
from tests.support.nats_logs import asked
from tests.support.nats_servers import NatsCluster, NatsOptions, running_nats

OPERATOR = {"user": "operator", "password": "right"}
USERS = {
    "operator": ("right", {}),
    "poor": ("right", {"publish": {"deny": ["$JS.API.STREAM.CREATE.>"]}}),
}


@contextmanager
def refused(
    folder: Path, cluster: NatsCluster, name: str, code: int, why: str, *flags: str
) -> Iterator[None]:
    """Start a manager on the stream *name*; it ends with *code* and a line with *why*, and leaves no file."""
    with managers(folder, cluster, name) as made:
        before = set(folder.iterdir())
        marker = folder / "marker"
        ended = made.begin(0, "--journal-marker", str(marker), *flags)
        assert ended.wait(60) == code
        yield
        log = made.log_of(0)
        (line,) = filter(None, log.read_text().splitlines())
        assert line.startswith("svc: ")
        assert why in line
        assert set(folder.iterdir()) - before == {log}


def streams(cluster: NatsCluster, **user: str) -> list[str]:
    """Return the names of all streams."""
    return [str(name) for name in asked(cluster, "STREAM.NAMES", {}, **user)["streams"] or []]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "kind", "why"),
    [
        pytest.param({"metadata": {}}, Conflict, "is no journal of svc", id="foreign"),
        pytest.param(
            {"metadata": {"svc.journal": "2"}},
            JournalError,
            "of version 2",
            id="version",
            marks=pytest.mark.long,
        ),
        pytest.param({}, ConfigurationError, "has 1 replica, and 3 are wanted", id="replicas"),
        pytest.param({"max_bytes": 1 << 20}, ConfigurationError, "max_bytes is 1048576", id="max_bytes"),
        pytest.param(
            {"max_age": 10**9 * 200}, ConfigurationError, "max_age is", id="max_age", marks=pytest.mark.long
        ),
        pytest.param(
            {"discard": "old"}, ConfigurationError, "discard is old", id="discard", marks=pytest.mark.long
        ),
    ],
)
def test_a_stream_with_a_fault_stays_as_it_is(tmp_path: Path, nats, changes: dict[str, Any], kind, why: str):
    name = f"odd-{'-'.join(changes) or 'replicas'}-{kind.code}"
    assert "error" not in asked(nats, f"STREAM.CREATE.{name}", {**new_stream(name, 1), **changes})
    before = asked(nats, f"STREAM.INFO.{name}", {})

    flags = () if changes else ("--journal-replicas", "3")
    with refused(tmp_path, nats, name, kind.exit_code, why, *flags):
        after = asked(nats, f"STREAM.INFO.{name}", {})
        assert (after["config"], after["state"]) == (before["config"], before["state"])
        bucket = asked(nats, f"STREAM.INFO.KV_{name}{BUCKET_SUFFIX}", {})
        assert bucket["error"]["err_code"] == NO_STREAM


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "why"),
    [
        (NatsOptions(jetstream=False), "has no JetStream"),
        (NatsOptions(max_payload=65_535), "max_payload to at least 65536"),
    ],
    ids=["jetstream", "max_payload"],
)
def test_a_server_with_a_fault_gets_no_stream(tmp_path: Path, options: NatsOptions, why: str):
    (folder := tmp_path / "manager").mkdir()
    with (
        running_nats(tmp_path / "nats", options=options) as cluster,
        refused(folder, cluster, "j", ConfigurationError.exit_code, why),
    ):
        assert not options.jetstream or streams(cluster) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("user", "kind", "why"),
    [
        ("poor:wrong", AuthenticationFailed, "refuse the user"),
        ("poor:right", Forbidden, "STREAM.CREATE.j"),
    ],
)
def test_a_user_that_is_refused_makes_no_stream(tmp_path: Path, user: str, kind, why: str):
    (folder := tmp_path / "manager").mkdir()
    credentials = tmp_path / "credentials"
    credentials.write_text(user)
    credentials.chmod(0o600)
    with (
        running_nats(tmp_path / "nats", options=NatsOptions(users=USERS)) as cluster,
        refused(folder, cluster, "j", kind.exit_code, why, "--nats-credentials-file", str(credentials)),
    ):
        assert streams(cluster, **OPERATOR) == []
