"""With a key for `submit` one waits for one's own jobs, and learns nothing about those of others."""

from __future__ import annotations

import secrets
import threading
from datetime import timedelta

import pytest

from svc.broker.manager import ManagerBroker
from svc.client.client import BrokerClient
from svc.client.specs import JobSpec, Options
from svc.codec import encode_result
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms, parse_job_id
from svc.domain.roles import Role
from svc.errors import Conflict, UnknownJob
from svc.server.keys import Key, KeyRing
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import NOW, record
from tests.support.manager import running_manager

VICTIM = "k3v9x0m2q7w1z"
KEY = "nightly-2026-11-22"
TERMS = Terms("m:f")
#: The victim's jobs: one has a key, the other must stay hidden from all others.
JOBS = [NewChunk(0, TERMS, [b"arguments"], key=KEY), NewChunk(1, TERMS, [b"secret"])]


@pytest.fixture(scope="module")
def keys():
    return {role: secrets.token_bytes(32) for role in Role}


@pytest.fixture
def manager(keys):
    with running_manager(keys=KeyRing(Key(role, secret) for role, secret in keys.items())) as running:
        yield running


@pytest.fixture
def join(manager, keys):
    joined: list[ManagerBroker] = []

    def broker(role: Role, hello: c.Hello | None = None) -> ManagerBroker:
        said = None if hello is None else lambda: hello
        joined.append(ManagerBroker(manager.endpoint, keys[role], hello=said, timeout=30))
        return joined[-1]

    yield broker
    for each in joined:
        each.close()


@pytest.fixture
def work(join):
    """Run all jobs that there are."""

    def run() -> None:
        hello = c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"])
        consumer = join(Role.WORK, hello)
        for delivery in consumer.lease(limit=9, wait=timedelta(seconds=5)).grant.deliveries:
            count = len(delivery.bodies)
            results = [encode_result("plain", number) for number in range(count)]
            record(consumer, c.Ack(delivery.token, delivery.first, results, [0.0] * count))

    return run


@pytest.mark.parametrize(
    "guess",
    [
        NewChunk(0, TERMS, [b"other arguments"], key=KEY),
        NewChunk(0, Terms("m:g"), [b"arguments"], key=KEY),
        NewChunk(5, TERMS, [b""], key=KEY),
        NewChunk(0, Terms("m:f", "other"), [b"x"], key=KEY),
    ],
)
def test_who_guesses_a_key_learns_no_id(join, guess):
    join(Role.SUBMIT).submit(VICTIM, JOBS)

    (note,) = join(Role.SUBMIT).submit("thief", [guess])

    assert (note.id, note.code) == ("", "conflict")
    assert VICTIM not in note.message


def test_who_knows_the_content_too_waits_for_this_job_alone(join, work):
    join(Role.SUBMIT).submit(VICTIM, JOBS)
    other = join(Role.SUBMIT)

    (note,) = other.submit("other", [NewChunk(3, TERMS, [b"arguments"], key=KEY)])
    work()

    assert not note.code
    assert VICTIM not in note.id
    (outcome,) = other.wait([note.id], timedelta(seconds=5))
    assert (outcome.id, outcome.result) == (note.id, encode_result("plain", 0))
    page = other.feed(c.Feed(parse_job_id(note.id)[0]))
    assert [(each.id, each.result) for each in page.outcomes] == [(note.id, encode_result("plain", 0))]


def _tampered(alias: str) -> list[str]:
    origin, _ = parse_job_id(alias)
    prefix, digest, key = origin.split(".", 2)
    return [
        f"{origin}-1",
        f"{prefix}.{'0' * len(digest)}.{key}-0",
        f"{prefix}..{key}-0",
        f"{prefix}.{digest[:-2]}.{key}-0",
        f"{prefix}.{'g' * len(digest)}.{key}-0",
        f"{prefix}.{digest}.other-0",
        f"{prefix}.{key}-0",
    ]


def test_no_other_alias_leads_anywhere(join):
    join(Role.SUBMIT).submit(VICTIM, JOBS)
    other = join(Role.SUBMIT)
    (note,) = other.submit("other", [NewChunk(0, TERMS, [b"arguments"], key=KEY)])

    for alias in _tampered(note.id):
        with pytest.raises(UnknownJob):
            other.wait([alias], NOW)
        (reply,) = other.call([c.Feed(alias.rpartition("-")[0])])
        assert isinstance(reply, r.Refused) or not reply.outcomes


@pytest.mark.parametrize("role", [Role.ADMIN])
def test_who_may_read_all_jobs_gets_the_id(join, role):
    join(Role.SUBMIT).submit(VICTIM, JOBS)

    (note,) = join(role).submit("other", [NewChunk(0, TERMS, [b"arguments"], key=KEY)])

    assert note.id == f"{VICTIM}-0"


def test_a_submitter_gets_its_own_ids(join):
    broker = join(Role.SUBMIT)
    broker.submit(VICTIM, JOBS)

    (note,) = broker.submit(VICTIM, [NewChunk(7, TERMS, [b"arguments"], key=KEY)])

    assert note.id == f"{VICTIM}-0"


def test_an_alias_and_an_id_name_one_job(join):
    join(Role.SUBMIT).submit(VICTIM, JOBS)
    (note,) = join(Role.SUBMIT).submit("other", [NewChunk(0, TERMS, [b"arguments"], key=KEY)])
    admin = join(Role.ADMIN)

    assert [view.id for view in admin.get([note.id])] == [f"{VICTIM}-0"]
    assert admin.cancel([note.id, f"{VICTIM}-0"]) == 1


@pytest.mark.parametrize("ended", [False, True])
def test_a_client_uses_an_alias_as_any_id(join, keys, manager, work, ended):
    spec = JobSpec("m:f", (1,), {}, Options(key=KEY))
    with (
        BrokerClient(lambda: ManagerBroker(manager.endpoint, keys[Role.SUBMIT])) as first,
        BrokerClient(lambda: ManagerBroker(manager.endpoint, keys[Role.SUBMIT])) as second,
    ):
        job = first.submit_spec(spec)
        if ended:
            work()
        same = second.submit_spec(spec)
        if not ended:
            work()

        assert same.id != job.id
        assert same.result(timeout=30) == job.result(timeout=30) == 0
        assert [outcome.id for outcome in second.follow([same], 5)] == [same.id]
        assert second.results([same, same.id], 5) == [0, 0]
        with pytest.raises(Conflict) as raised:
            second.submit_spec(JobSpec("m:f", (2,), {}, Options(key=KEY)))
        assert parse_job_id(job.id)[0] not in str(raised.value)


def test_a_feed_of_an_alias_waits_for_the_end_of_its_job(join, work):
    join(Role.SUBMIT).submit(VICTIM, JOBS)
    other = join(Role.SUBMIT)
    (note,) = other.submit("other", [NewChunk(0, TERMS, [b"arguments"], key=KEY)])
    found: list[r.Outcomes] = []
    origin = parse_job_id(note.id)[0]
    thread = threading.Thread(target=lambda: found.append(other.feed(c.Feed(origin, wait=30.0))))
    thread.start()
    work()
    thread.join(30)

    assert [each.id for page in found for each in page.outcomes] == [note.id]
