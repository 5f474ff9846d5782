from __future__ import annotations

import msgspec
import pytest

from svc.domain import events as e
from svc.domain.columns import content_digest
from svc.domain.job import job_id, parse_job_id


def test_an_id_is_its_origin_and_number():
    assert parse_job_id(job_id("a-b", 12)) == ("a-b", 12)


@pytest.mark.parametrize("text", ["", "a", "-1", "a-", "a-x", "a-1x", "a-²", "a- 1"])
def test_what_is_no_id_says_how_one_looks(text):
    with pytest.raises(ValueError, match="looks like"):
        parse_job_id(text)


def test_keys_tell_long_task_names_apart():
    common = "package.module:" + "x" * 80

    assert content_digest(common + "a", b"") != content_digest(common + "b", b"")
    assert content_digest("m:f", b"x") == content_digest("m:f", b"x")


@pytest.mark.parametrize(
    ("old", "event"),
    [
        (["forgotten", 1.0, "o", 7], e.Forgotten(1.0, "o", 7, [])),
        (["drained", 1.0, 2], e.Drained(1.0, 2)),
        (["submitted", 1.0, "o", 0, ["m:f"], [b""]], None),
    ],
)
def test_events_of_an_older_journal_are_read(old, event):
    """Fields are added at the end with a default, so an array that ends early is an older row."""
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=e.AnyEvent)

    assert event is None or read == event
