"""Outcomes that travel as ranges are the same outcomes."""

from __future__ import annotations

from datetime import timedelta

from svc.broker.local import LocalBroker, LocalQueue
from svc.domain import commands as c
from svc.domain.job import ErrorInfo, NewChunk, Outcome, Terms
from svc.domain.lifecycle import JobState
from svc.domain.replies import Outcomes, Span
from tests.support.asking import record

NOW = timedelta()


def ended() -> tuple[LocalBroker, LocalQueue]:
    """Return a client of a queue in which jobs 0 to 2 succeeded, 3 died and 4 succeeded."""
    queue = LocalQueue()
    client = LocalBroker(queue)
    hello = c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"])
    consumer = LocalBroker(queue, lambda: hello)
    client.submit("o", [NewChunk(0, Terms("m:f"), [b"\x01"] * 5)])
    (first,) = consumer.lease(limit=5, wait=NOW).grant.deliveries
    record(consumer, c.Ack(first.token, 0, [b"a", b"b", b"c"], [0.1, 0.2, 0.3]))
    record(consumer, c.Nack(first.token, 3, ErrorInfo("E", "no")))
    record(consumer, c.Ack(first.token, 4, [b"e"], [0.5]))
    return client, queue


def asked(client: LocalBroker, *, folded: bool) -> Outcomes:
    (reply,) = client.call([c.Feed("o", folded=folded)])
    assert isinstance(reply, Outcomes)
    return reply


def test_a_folded_feed_has_a_span_for_each_range_of_results_and_an_outcome_for_each_failure():
    client, _ = ended()
    reply = asked(client, folded=True)

    assert [(span.first, span.results, span.seconds) for span in reply.spans] == [
        (0, [b"a", b"b", b"c"], [0.1, 0.2, 0.3]),
        (4, [b"e"], [0.5]),
    ]
    assert [outcome.id for outcome in reply.outcomes] == ["o-3"]


def test_unfolded_it_is_the_feed_that_was_not_folded():
    client, _ = ended()

    assert asked(client, folded=True).unfolded() == asked(client, folded=False) == client.feed(c.Feed("o"))


def test_unfolding_keeps_the_order_in_which_jobs_ended():
    early = Span("o", 0, [b"a"], [0.0], "plain", 1.0, "m:f")
    late = Span("o", 2, [b"c"], [0.0], "plain", 3.0, "m:f")
    dead = Outcome("o-1", JobState.DEAD, finished_at=2.0)

    assert [each.id for each in Outcomes(9, [dead], 0, [early, late]).unfolded().outcomes] == [
        "o-0",
        "o-1",
        "o-2",
    ]


def test_the_results_of_a_folded_feed_are_those_of_its_outcomes_and_failures_are_outcomes():
    client, _ = ended()
    page = client.feed(c.Feed("o", folded=True))
    outcomes = {each.id: each for each in page.unfolded().outcomes}

    assert page.spans
    assert page.jobs == len(outcomes) == 5
    assert page.results() == {
        job: each.result if each.state is JobState.SUCCEEDED else each for job, each in outcomes.items()
    }


def test_a_folded_feed_that_has_only_spans_is_not_kept_waiting():
    queue = LocalQueue()
    client = LocalBroker(queue)
    hello = c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"])
    consumer = LocalBroker(queue, lambda: hello)
    client.submit("o", [NewChunk(0, Terms("m:f"), [b"\x01"])])
    (lease,) = consumer.lease(limit=1, wait=NOW).grant.deliveries
    record(consumer, c.Ack(lease.token, 0, [b"a"], [0.1]))

    assert [each.result for each in client.feed(c.Feed("o", wait=30.0)).outcomes] == [b"a"]
    assert client.feed(c.Feed("o", wait=30.0, folded=True)).results() == {"o-0": b"a"}


def joined(queue, name):
    return LocalBroker(queue, lambda: c.Hello(1, "consumer", name, "w", tasks=["m:f"]))


def test_a_grant_is_never_below_a_sixteenth_of_what_was_asked_for():
    """Of twenty jobs one of two consumers gets half, or more if it asks for very many."""
    queue = LocalQueue()
    first, second = (joined(queue, name) for name in ("w-1", "w-2"))
    LocalBroker(queue).submit("o", [NewChunk(0, Terms("m:f"), [b"\x01"] * 20)])

    assert len(first.lease(limit=20, wait=NOW).grant.deliveries[0].bodies) == 10
    assert len(second.lease(limit=256, wait=NOW).grant.deliveries[0].bodies) == 10
    LocalBroker(queue).submit("p", [NewChunk(0, Terms("m:f"), [b"\x01"] * 20)])
    assert len(second.lease(limit=256, wait=NOW).grant.deliveries[0].bodies) == 16


def test_a_grant_of_jobs_that_are_known_to_be_short_is_never_below_half_of_what_may_be_read_ahead():
    queue = LocalQueue()
    first, _second, _third, _fourth = (joined(queue, name) for name in ("w-1", "w-2", "w-3", "w-4"))
    for _ in range(8):  # each report doubles the number of jobs that the queue trusts the task with
        queue.host.state.run_times.ran("m:f", 10, 0.001)
    LocalBroker(queue).submit("o", [NewChunk(0, Terms("m:f"), [b"\x01"] * 20)])

    ahead = timedelta(seconds=0.0016)
    assert len(first.lease(limit=256, wait=NOW, ahead=ahead).grant.deliveries[0].bodies) == 8
