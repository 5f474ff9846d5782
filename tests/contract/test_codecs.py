"""A job goes to consumers that accept its codec; until there is one it waits, and says so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from svc.broker.host import QueueHost
from svc.domain import admission
from svc.domain import commands as c
from svc.domain.job import CALL, NewChunk
from svc.domain.members import Member
from svc.errors import BadRequest
from tests.support.asking import ack_of, chunk, counts, lease, lease_one, numbers, record, states, submit

PICKLED: dict[str, Any] = {"codec": "pickle"}


@pytest.mark.parametrize("task", ["m:f", CALL])
@pytest.mark.parametrize(
    ("codec", "accept"),
    [
        ("pickle", ["plain"]),
        ("plain", ["pickle"]),
        ("pickle", []),
        ("newer", ["plain", "pickle"]),
        ("typed", ["plain"]),
    ],
)
def test_a_job_waits_for_a_consumer_that_accepts_its_codec(engine, queue, task, codec, accept):
    narrow = engine.consumer("w-1", accept=accept)
    submit(queue, chunk(task=task, codec=codec))

    assert lease(narrow) == []
    assert states(queue, "o-0") == ["ready"]
    assert numbers(lease(engine.consumer("w-2", accept=[codec]))) == [0]


def test_a_job_that_nobody_accepts_stands_in_nobodys_way(engine, queue):
    narrow = engine.consumer(accept=["plain"])
    submit(queue, chunk(0, priority=9, **PICKLED), chunk(1), chunk(2, **PICKLED), chunk(3))

    assert numbers(lease(narrow, limit=10)) == [1, 3]


def test_a_consumer_that_accepts_both_takes_the_oldest_first(engine, queue):
    submit(queue, chunk(0, **PICKLED), chunk(1), chunk(2, **PICKLED))

    assert numbers(lease(engine.consumer(accept=["plain", "pickle"]), limit=10)) == [0, 1, 2]


def test_an_older_consumer_that_names_no_codecs_gets_every_job(engine, queue):
    submit(queue, chunk(0), chunk(1, **PICKLED))

    assert numbers(lease(engine.consumer(accept=None), limit=10)) == [0, 1]


def test_one_that_waits_is_woken_though_another_that_waits_longer_cannot_take_the_job(engine, queue):
    narrow, wide = (
        engine.consumer("w-1", accept=["plain"]),
        engine.consumer("w-2", accept=["plain", "pickle"]),
    )
    submit(queue, chunk(0, **PICKLED))

    assert lease(narrow, wait=timedelta(milliseconds=1)) == []
    assert numbers(lease(wide, wait=timedelta(seconds=5))) == [0]


def test_a_pill_put_by_hand_reaches_a_consumer_of_any_codec(engine):
    consumer = engine.consumer(accept=["plain"])
    pill = chunk(0, task="#pill", codec="item")
    engine.inside(lambda host: _put_inside(host, pill))

    grant = consumer.lease(limit=1, wait=timedelta(0)).grant

    assert grant.pill


def test_a_job_that_waits_for_a_codec_says_so_and_so_do_the_counts(engine, queue):
    engine.consumer(tasks=["m:f"], accept=["plain"])
    submit(queue, chunk(0, **PICKLED), chunk(1), chunk(2, task="m:g", **PICKLED))

    views = queue.get(["o-0", "o-1", "o-2"])

    assert "--accept pickle" in views[0].reason
    assert "codec" not in views[1].reason
    assert "knows the task 'm:g'" in views[2].reason
    assert (counts(queue).unaccepted, counts(queue).unknown) == (["pickle"], ["m:g"])


def test_the_counts_name_a_codec_until_somebody_who_knows_the_task_accepts_it(engine, queue):
    engine.consumer("w-1", tasks=["m:f"], accept=["plain"])
    engine.consumer("w-2", tasks=["m:g"], accept=["pickle"])
    submit(queue, chunk(0, **PICKLED))
    assert counts(queue).unaccepted == ["pickle"]

    wide = engine.consumer("w-3", tasks=["m:f"], accept=["pickle"])

    assert counts(queue).unaccepted == []
    engine.cut(wide)
    assert counts(queue).unaccepted == ["pickle"]


def test_strict_refuses_a_codec_that_nobody_accepts(engine, queue):
    engine.consumer(tasks=["m:f"], accept=["plain"])

    (note,) = queue.submit("o", [chunk(0), chunk(1, **PICKLED)], strict=True)

    assert (note.chunk, note.code) == (1, "codec")
    assert "--accept pickle" in note.message


def test_a_job_given_back_waits_for_the_codec_again(engine, queue):
    submit(queue, chunk(0, **PICKLED))
    wide = engine.consumer("w-1", accept=["pickle"])
    delivery = lease_one(wide)
    record(wide, c.Release(delivery.token, delivery.first))

    assert lease(engine.consumer("w-2", accept=["plain"])) == []
    assert numbers(lease(wide)) == [0]


def test_a_lease_that_is_held_over_a_restart_comes_back_to_its_holder(engine, queue):
    submit(queue, chunk(0, **PICKLED))
    delivery = lease_one(engine.consumer(accept=["pickle"]))
    held = [c.Held(delivery.token, delivery.origin, delivery.first, 1)]

    engine.restart()
    consumer = engine.consumer(held=held, accept=["pickle"])
    record(consumer, ack_of(delivery))

    assert states(engine.client(), "o-0") == ["succeeded"]


@pytest.mark.parametrize("accept", [["pick\nle"], ["\x00"], ["#item"]])
def test_odd_names_of_codecs_are_refused(engine, accept):
    with pytest.raises(BadRequest):
        engine.consumer(accept=accept).stats()


def _put_inside(host: QueueHost, pill: NewChunk) -> None:
    admission.submit(host.state, c.Submit("put1", [pill]), Member("plain", inside=True), host.clock.now())


def test_a_job_with_extension_types_names_the_worker_that_it_waits_for(engine, queue):
    engine.consumer("w-1", tasks=["m:f"], accept=["plain"])
    submit(queue, chunk(task="m:f", codec="typed"))

    assert queue.get(["o-0"])[0].reason.endswith("accepts the codec 'typed'; start one of this release")
