"""When a leader shows to the followers of its log that it lives."""

from __future__ import annotations

import math

import pytest

from svc.server.journal.jetstream.follower_watch import FollowerWatch
from svc.server.journal.jetstream.log import LogFacts


def facts(followers: int, last: int) -> LogFacts:
    return LogFacts(1, last, last, 0, "n", 3, 3, 0, 1000, "2.14.5", followers=followers)


@pytest.mark.parametrize(
    ("followers", "known", "last", "appends"),
    [
        pytest.param(1, 1, 7, 0, id="its-own-standby"),
        pytest.param(0, 1, 7, 0, id="a-standby-that-has-just-gone"),
        pytest.param(2, 1, 7, 1, id="a-stranger"),
        pytest.param(2, math.inf, 7, 0, id="it-may-not-be-valid"),
        pytest.param(0, 0, 8, 1, id="another-one-has-written"),
        pytest.param(0, math.inf, 8, 1, id="another-one-has-written-while-it-was-not-valid"),
    ],
)
def test_a_leader_appends_for_strangers_only(followers: int, known: float, last: int, appends: int):
    appended: list[None] = []

    async def ask() -> LogFacts:
        raise AssertionError

    FollowerWatch(ask, lambda: 7, lambda: known, lambda: appended.append(None)).note(facts(followers, last))

    assert len(appended) == appends
