import http.client
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from svc.broker.local import LocalBroker
from svc.cli.status import _route, round_trip_text
from svc.domain.commands import PROTOCOL_VERSION, Extend, Hello, Ping
from svc.domain.job import NewChunk, Terms
from svc.domain.replies import WorkerView
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
    "leader",
    "term",
    "standbys",
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


def test_the_status_says_that_shell_commands_wait_for_a_worker_that_runs_them(svc, consumer):
    svc("run", "--", "true")
    told = svc("status").err
    assert "no connected worker runs shell commands; start one with --shell" in told
    assert "--tasks" not in told
    svc("submit", "no:task")
    told = svc("status").err
    assert "no connected worker knows the task no:task; start one with its module in --tasks" in told
    assert "start one with --shell" in told


def test_workers_have_these_names_in_json(svc, consumer):
    (found,) = svc("workers", "--json").json
    assert set(found) == WORKER
    assert (found["name"], found["consumers"], found["queues"]) == ("w1", 1, ["default"])
    assert "t:f" in found["tasks"]


def test_workers_are_a_table_for_people(svc, consumer):
    head, row = svc("workers").lines
    assert head.startswith("WORKER")
    assert row.split()[:3] == ["w1", "host", "1"]


def test_workers_show_their_round_trip_and_the_jobs_that_they_hold_behind_others(svc, consumer):
    for _ in range(3):
        svc("submit", "t:f")
    consumer.broker.lease(limit=3, wait=timedelta(0))
    consumer.supervisor.call([Extend(round_trip=0.0123)])
    head, row = svc("workers").lines
    shown = dict(zip(head.split(), row.split(), strict=False))
    assert shown["ROUND-TRIP"] == "12ms"
    (found,) = svc("workers", "--json").json
    assert (found["round_trip_seconds"], found["leased"]) == (0.0123, 3)
    assert str(found["read_ahead"]) == shown["READ-AHEAD"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "-"), (0.00041, "0.4ms"), (0.0099, "9.9ms"), (0.5, "500ms")]
)
def test_a_round_trip_is_shown_in_milliseconds(seconds, text):
    view = WorkerView("w", "h", 1, "", 1, 0, 0, 0, [], [], 0.0, 0.0, draining=False, round_trip=seconds)
    assert round_trip_text(view) == text


def test_a_worker_whose_leases_have_expired_is_silent(svc, queue, consumer):
    assert svc("workers").lines[1].endswith("taking jobs")
    queue.host.state.workers["w1"].expires = 0.0
    assert svc("workers").lines[1].endswith("silent")
    assert svc("workers", "--json").json[0]["silent"] is True


def test_a_worker_whose_name_another_process_has_too_is_shown_as_such(svc, queue, consumer):
    assert svc("workers", "--json").json[0]["doubled"] is False
    queue.host.state.workers["w1"].doubled_at = queue.host.clock.now()
    assert svc("workers").lines[1].endswith("name taken twice")
    assert svc("workers", "--json").json[0]["doubled"] is True


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
    told = "no connected worker knows the {}; start one with {} in --tasks\n"
    assert ended.err == told.format("task other:task", "its module")
    svc("submit", "third:task")
    assert svc("status").err == told.format("tasks other:task, third:task", "their modules")


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
    connection = http.client.HTTPConnection("127.0.0.1", served, timeout=30)
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


def _hello(hello: Hello) -> Hello:
    return hello


def test_workers_shows_the_versions_of_the_code_and_how_many_consumers_have_each(svc, queue):
    brokers = []
    for number, code in enumerate(("0123456789ab", "0123456789ab", "fedcba987654", "")):
        hello = Hello(PROTOCOL_VERSION, "consumer", f"w-{number}", "w", tasks=["t:f"], code=code)
        brokers.append(LocalBroker(queue, partial(_hello, hello)))
        brokers[-1].call([Ping()])
    (worker,) = svc("workers", "--json").json
    assert worker["code"] == {"0123456789ab": 2, "fedcba987654": 1}
    assert "0123456789ab (2), fedcba987654 (1)" in svc("workers").out
    brokers[2].close()
    assert svc("workers").out.splitlines()[1].split().count("0123456789ab") == 1
