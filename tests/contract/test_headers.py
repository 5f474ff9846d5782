"""A header beside the body of a job: every engine keeps it, and hands it to the consumer."""

from __future__ import annotations

import pytest

from svc.broker.base import Broker
from svc.domain.field_bounds import HEADER_MAX
from svc.domain.job import NewChunk, Terms
from tests.support.asking import chunk, lease, lease_one, submit
from tests.support.engines import Engine

TERMS = Terms("m:f")


@pytest.fixture
def consumer(engine: Engine) -> Broker:
    return engine.consumer()


@pytest.mark.parametrize("headers", [[], [b"trace"], [b"\x00" * HEADER_MAX]], ids=["none", "one", "longest"])
def test_a_header_comes_with_the_job(queue, consumer, headers):
    submit(queue, NewChunk(0, TERMS, [b"body"], headers=headers))

    delivery = lease_one(consumer)
    assert (delivery.bodies, delivery.headers) == ([b"body"], headers)


def test_jobs_with_and_without_a_header_share_a_delivery(queue, consumer):
    submit(queue, NewChunk(0, TERMS, [b"0", b"1"], headers=[b"a", b""]))
    submit(queue, chunk(2))

    (delivery,) = lease(consumer, 9)
    assert delivery.headers == [b"a", b"", b""]


def test_a_submit_that_is_sent_again_with_its_headers_is_the_same(queue):
    jobs = NewChunk(0, TERMS, [b"0", b"1"], headers=[b"a", b""])

    assert submit(queue, jobs) == submit(queue, jobs) == []


@pytest.mark.parametrize("headers", [[], [b"a", b"b"]])
def test_the_same_numbers_with_other_headers_are_other_jobs(queue, headers):
    submit(queue, NewChunk(0, TERMS, [b"0", b"1"], headers=[b"a", b""]))

    (note,) = submit(queue, NewChunk(0, TERMS, [b"0", b"1"], headers=headers))
    assert (note.code, note.anew) == ("conflict", True)


def test_a_key_finds_its_job_whatever_the_header(queue):
    submit(queue, NewChunk(0, TERMS, [b"0"], 0.0, "key", [b"a trace"]))

    (note,) = submit(queue, NewChunk(1, TERMS, [b"0"], 0.0, "key", [b"another trace"]))
    assert (note.id, note.code) == ("o-0", "")


def test_headers_are_kept_over_a_restart(engine, queue):
    submit(queue, NewChunk(0, TERMS, [b"0", b"1"], headers=[b"a", b""]))
    engine.restart()
    engine.advance(engine.limits.reconnect_seconds + 1)

    (delivery,) = lease(engine.consumer(), 9)
    assert delivery.headers == [b"a", b""]
