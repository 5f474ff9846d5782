"""The address of a replicated journal, its user, and the checks that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from svc.errors import AuthenticationFailed, ConfigurationError
from svc.journal_address import NatsUser, parse_journal, parse_stream, parse_user
from svc.key_files import read_nats_credentials
from svc.server.journal.jetstream.stream_form import (
    PAYLOAD_MIN,
    RELEASE_MIN,
    check_server,
    check_stream,
    new_stream,
    release_of,
)

MINIMUM = ".".join(map(str, RELEASE_MIN))


@pytest.mark.parametrize(
    ("text", "urls", "name"),
    [
        ("nats://a:4222,b:4223/jobs", ["nats://a:4222", "nats://b:4223"], "jobs"),
        ("nats://a,a,[::1]/Jobs_1-x", ["nats://a:4222", "nats://[::1]:4222"], "Jobs_1-x"),
        ("tls://nats.example:4222/jobs", ["tls://nats.example:4222"], "jobs"),
        (" NATS://10.0.0.1/j ", ["nats://10.0.0.1:4222"], "j"),
    ],
)
def test_an_address_has_servers_and_a_name(text, urls, name):
    address = parse_stream(text)
    assert (address.urls(), address.name) == (urls, name)
    assert parse_stream(str(address)) == address
    assert parse_journal(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "jobs.db", "nats://", "nats://a", "nats://a/", "nats:///jobs", "nats://a,,b/jobs", "nats://a:0/jobs",
        "nats://a:70000/jobs", "nats://a/jobs.x", "nats://a/jo bs", "nats://a/" + "x" * 65, "redis://a/jobs",
        "nats://" + ",".join(f"h{number}" for number in range(17)) + "/jobs", "nats://a/b/jobs",
    ],
)  # fmt: skip
def test_an_odd_address_is_refused(text):
    with pytest.raises(ConfigurationError):
        parse_stream(text)


@pytest.mark.parametrize(
    "text", ["nats://user:secret@a/jobs", "nats://a,me:secret@b:1/jobs", "nats://a/s@secret"]
)
def test_a_password_in_the_address_is_refused_and_not_shown(text):
    with pytest.raises(ConfigurationError, match="a file of its own") as refused:
        parse_stream(text)
    assert "secret" not in str(refused.value)


def test_a_path_is_not_taken_for_a_stream():
    for text in ("/var/lib/svc/journal.db", "nats"):
        assert parse_journal(text) == Path(text)


def test_credentials_are_a_user_with_a_password_or_a_token(tmp_path, monkeypatch):
    file = tmp_path / "credentials"
    file.write_text("svc:pass:word\n")
    file.chmod(0o640)
    text = read_nats_credentials(file)
    assert text is not None
    assert parse_user(text) == NatsUser("svc", "pass:word")
    assert parse_user("s3cr3t") == NatsUser(token="s3cr3t")
    assert "pass" not in repr(parse_user(text))
    monkeypatch.setenv("SVC_NATS_CREDENTIALS_FILE", str(file))
    assert read_nats_credentials() == text


def test_odd_credentials_are_refused(tmp_path):
    file = tmp_path / "credentials"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_nats_credentials(file)
    file.write_bytes(b"\xff\xfe")
    file.chmod(0o600)
    with pytest.raises(ConfigurationError, match="no text"):
        read_nats_credentials(file)
    file.chmod(0o604)
    with pytest.raises(AuthenticationFailed, match="every user of this host can read"):
        read_nats_credentials(file)
    for text in ("", "-----BEGIN NATS USER JWT-----\nabc\n"):
        with pytest.raises(ConfigurationError, match="one line"):
            parse_user(text)


@pytest.mark.parametrize("release", ["2.14.4", "2.9.25", "1.4.1", "2.14", "", "odd"])
def test_a_server_that_is_too_old_is_refused(release):
    with pytest.raises(ConfigurationError, match=f"{MINIMUM} is the first"):
        check_server(release, PAYLOAD_MIN, jetstream=True)


@pytest.mark.parametrize("release", [MINIMUM, "2.15.0-RC.1", "v2.14.6", "3.0.0"])
def test_a_newer_server_is_taken(release):
    check_server(release, PAYLOAD_MIN, jetstream=True)


def test_the_numbers_of_a_release_are_compared_as_numbers():
    assert release_of("2.9.25") < release_of("2.14.5") == (2, 14, 5)


def test_a_stream_with_more_replicas_than_wanted_is_taken_and_one_that_waits_to_disk_is_not():
    check_stream(new_stream("j", 5), "j", 3)
    with pytest.raises(ConfigurationError, match="persist_mode is async"):
        check_stream({**new_stream("j", 1), "persist_mode": "async"}, "j", 1)
