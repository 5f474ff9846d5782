import http.client
from types import SimpleNamespace
from typing import Any

import pytest

from svc.broker.local import LocalBroker
from svc.cli.status import _route
from svc.domain.commands import PROTOCOL_VERSION, Hello, Ping
from svc.domain.job import NewChunk, Terms
from svc.telemetry.http import HttpServer
from tests.support.document_names import WORKER

QUEUE = {
    "name",
    "ready",
    "scheduled",
    "leased",
    "dead",
    "succeeded",
    "cancelled",
    "submitted",
    "oldest_seconds",
    "oldest_running_seconds",
    "unknown_tasks",
    "unaccepted_codecs",
}
STATUS = {
    "release",
    "uptime_seconds",
    "durability",
    "journal_bytes",
    "incarnation",
    "workers",
    "consumers",
    "busy",
    "draining",
    "drain_epoch",
    "clock_offset_seconds",
    "clock_held",
    "drained_workers",
    "queues",
}


def test_queues_have_these_names_in_json(svc):
    svc("submit", "t:f")
    (found,) = svc("queues", "--json").json
    assert set(found) == QUEUE
    assert (found["name"], found["ready"], found["unknown_tasks"]) == ("default", 1, ["t:f"])
    assert set(svc("queues", "--ndjson").json) == QUEUE


def test_queues_are_a_table_for_people(svc):
    svc("submit", "t:f", "--queue", "mail")
    head, row = svc("queues").lines
    assert head.split()[:3] == ["QUEUE", "READY", "SCHEDULED"]
    assert row.split()[:3] == ["mail", "1", "0"]


def test_workers_have_these_names_in_json(svc, consumer):
    (found,) = svc("workers", "--json").json
    assert set(found) == WORKER
    assert (found["name"], found["consumers"], found["queues"]) == ("w1", 1, ["default"])
    assert "t:f" in found["tasks"]


def test_workers_are_a_table_for_people(svc, consumer):
    head, row = svc("workers").lines
    assert head.startswith("WORKER")
    assert row.split()[:3] == ["w1", "host", "1"]


def test_where_there_is_nothing_stdout_stays_empty(svc):
    for verb in ("queues", "workers"):
        ended = svc(verb)
        assert (ended.code, ended.out) == (0, "")
        assert ended.err


def test_status_has_these_names_in_json(svc, consumer):
    svc("submit", "t:f")
    found = svc("status", "--json").json
    assert set(found) == STATUS
    assert (found["workers"], found["consumers"], found["draining"]) == (1, 1, False)
    assert set(found["queues"][0]) == QUEUE


def test_status_tells_of_a_drain_and_of_tasks_that_nobody_knows(svc, consumer):
    svc("submit", "other:task")
    svc("drain", "--no-wait")
    ended = svc("status")
    assert "draining  yes" in ended.out
    assert "no connected worker knows the task other:task" in ended.err


@pytest.mark.parametrize(
    ("accept", "codecs", "told"),
    [
        (["plain"], ["pickle"], ["no worker accepts pickle; jobs wait for one with --accept pickle"]),
        (["pickle"], ["plain", "pickle"], ["no worker accepts plain"]),
        ([], ["plain", "pickle"], ["no worker accepts pickle", "no worker accepts plain"]),
        (["plain", "pickle"], ["plain", "pickle"], []),
        (None, ["plain", "pickle"], []),
    ],
)
def test_status_tells_of_codecs_that_nobody_accepts(svc, queue, accept, codecs, told):
    hello = Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["t:f"], accept=accept)
    LocalBroker(queue, lambda: hello).call([Ping()])
    chunks = [NewChunk(place, Terms("t:f", codec=name), [b"x"]) for place, name in enumerate(codecs)]
    LocalBroker(queue).submit("o", chunks)

    ended = svc("status")

    assert all(each in ended.err for each in told)
    assert ended.err.count("accepts") == len(told)
    assert sorted(svc("status", "--json").json["queues"][0]["unaccepted_codecs"]) == sorted(
        set(codecs) - set(codecs if accept is None else accept)
    )


def test_metrics_are_the_managers_text(svc):
    ended = svc("metrics")
    assert ended.code == 0


@pytest.fixture
def served():
    client: Any = SimpleNamespace(metrics=lambda: "svc_up 1\n")
    server = HttpServer(("127.0.0.1", 0), {"/metrics": _route(client)})
    server.start()
    yield server.address[1]
    server.stop()


@pytest.mark.parametrize(("path", "status"), [("/metrics", 200), ("/metrics?x=1", 200), ("/", 404)])
def test_metrics_are_served_at_their_path_alone(served, path, status):
    connection = http.client.HTTPConnection("127.0.0.1", served, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == status
    assert (body == b"svc_up 1\n") == (status == 200)


def test_metrics_on_a_taken_port_are_a_clear_error(svc, served):
    ended = svc("metrics", "--http", f"127.0.0.1:{served}")
    assert ended.code == 6
    assert "the address is in use" in ended.err
