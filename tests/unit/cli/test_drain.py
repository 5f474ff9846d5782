import threading
from datetime import timedelta

import pytest


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("svc.cli.drain.LOOK_SECONDS", 0.005)


def leave_at_the_pill(consumer):
    grant = consumer.broker.lease(limit=1, wait=timedelta(seconds=10)).grant
    assert grant.pill
    consumer.leave()


def test_drain_ends_when_every_consumer_has_gone(svc, consumer):
    thread = threading.Thread(target=leave_at_the_pill, args=[consumer])
    thread.start()
    ended = svc("drain", "--timeout", "10")
    thread.join()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("drained in ")


def test_drain_in_json(svc):
    found = svc("drain", "--json").json
    assert set(found) == {"drained", "consumers", "leased", "seconds"}
    assert (found["drained"], found["consumers"], found["leased"]) == (True, 0, 0)


def test_when_the_time_runs_out_the_drain_stays_in_force(svc, consumer):
    ended = svc("drain", "--timeout", "0.05")
    assert ended.code == 124
    assert "the drain stays in force until `svc resume`" in ended.err
    assert svc("status", "--json").json["draining"] is True


def test_one_worker_can_be_drained(svc, queue, consumer):
    from tests.unit.cli.conftest import Consumer  # the same file that pytest loaded as the fixtures

    other = Consumer(queue, worker="w2")
    thread = threading.Thread(target=leave_at_the_pill, args=[consumer])
    thread.start()
    ended = svc("drain", "--worker", "w1", "--timeout", "10")
    thread.join()
    assert ended.code == 0
    assert svc("status", "--json").json["drained_workers"] == ["w1"]
    other.leave()


def test_progress_is_a_line_each_ten_seconds_where_stderr_is_no_terminal(svc, consumer, monkeypatch):
    monkeypatch.setattr("svc.cli.drain.LINE_SECONDS", 0.02)
    ended = svc("drain", "--timeout", "0.2")
    assert "1 consumers and 0 running jobs are left\n" in ended.err
    assert "\r" not in ended.err


def test_no_wait_returns_at_once(svc, consumer):
    ended = svc("drain", "--no-wait")
    assert (ended.code, ended.out) == (0, "draining: 1 consumers and 0 running jobs are left\n")


def test_resume_says_whether_there_was_a_drain(svc):
    assert svc("resume").out == "nothing was draining\n"
    svc("drain", "--no-wait")
    assert svc("resume", "--json").json == {"resumed": True}
    assert svc("status", "--json").json["draining"] is False


@pytest.mark.parametrize("name", ["nope", "W1", "w", "w1 ", "*"])
def test_a_worker_that_is_not_there_cannot_be_drained(svc, consumer, name):
    ended = svc("drain", "--worker", name, "--timeout", "1")
    assert (ended.code, ended.out) == (5, "")
    assert ended.err.startswith(f"svc: no worker is named {name!r}")
    assert svc("status", "--json").json["drained_workers"] == []


def test_the_nearest_worker_is_named(svc, consumer):
    assert "did you mean w1?" in svc("drain", "--worker", "w2").err
    assert "did you mean" not in svc("drain", "--worker", "elephant").err


@pytest.mark.parametrize("name", ["nope", "w2", "W1"])
def test_a_worker_that_is_not_there_cannot_be_resumed(svc, consumer, name):
    assert svc("resume", "--worker", name).code == 5


def test_a_drained_worker_that_has_gone_can_be_resumed(svc, consumer):
    svc("drain", "--worker", "w1", "--no-wait")
    consumer.leave()
    assert svc("resume", "--worker", "w1").out == "resumed\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "the drain stays in force until `svc resume`"),
        (["--worker", "w1"], "the drain stays in force until `svc resume --worker w1`"),
        (["--refuse"], "the drain stays in force until `svc resume`"),
        (["--timeout", "60"], "the drain stays in force until `svc resume`"),
    ],
)
def test_ctrl_c_ends_the_wait_and_says_that_the_drain_stays(svc, consumer, monkeypatch, argv, said):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("svc.cli.drain.time.sleep", interrupt)
    ended = svc("drain", *argv)
    assert (ended.code, ended.out) == (130, "")
    assert said in ended.err
    found = svc("status", "--json").json
    assert found["draining"] or found["drained_workers"] == ["w1"]
