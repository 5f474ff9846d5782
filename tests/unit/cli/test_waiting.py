"""Nobody waits in silence: why a job has not ended is told at once, with its id."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest

from svc.broker.local import LocalBroker
from svc.domain import commands as c
from svc.errors import Forbidden
from svc.wire import PROTOCOL_VERSION
from tests.unit.cli.conftest import Consumer

TASKS = ("mytasks:add", "mytasks:fetch", "greet")
SHORT = ("--wait", "--wait-timeout", "0.5")


@pytest.fixture
def member(queue):
    """Connect a consumer of queues, which accepts codecs."""

    def join(tasks=TASKS, queues=("default", "mail"), accept=("plain",)) -> None:
        hello = c.Hello(
            PROTOCOL_VERSION,
            "consumer",
            "w/1",
            "w",
            "host",
            1,
            list(tasks),
            list(queues),
            accept=list(accept),
        )
        LocalBroker(queue, lambda: hello)

    return join


def told(ended) -> tuple[str, str]:
    """Return the id and the reason of the first line on stderr."""
    job, _, why = ended.err.splitlines()[0].removeprefix("svc: job ").partition(" ")
    return job, why


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["mytasks:ad", "2", "3"], "knows the task 'mytasks:ad'; did you mean mytasks:add?"),
        (["add"], "knows the task 'add'; did you mean mytasks:add?"),
        (["mytask:fetch"], "knows the task 'mytask:fetch'; did you mean mytasks:fetch?"),
        (["Greet"], "knows the task 'Greet'; did you mean greet?"),
        (["xylophone"], "waits: no connected worker of queue 'default' knows the task 'xylophone'"),
        (["greet", "--queue", "mial"], "takes jobs from the queue 'mial'; did you mean mail?"),
        (["greet", "--queue", "Default"], "takes jobs from the queue 'Default'; did you mean default?"),
        (["greet", "--queue", "xyz"], "waits: no connected worker takes jobs from the queue 'xyz'"),
    ],
)
def test_a_name_that_nobody_knows_is_told_at_once_with_the_nearest(svc, member, argv, why):
    member()
    ended = svc("submit", *argv, *SHORT)
    job, said = told(ended)
    assert (ended.code, ended.out) == (124, "")
    assert said.endswith(why)
    assert svc("jobs", "show", job, "--json").json["state"] == "ready"


def test_a_command_without_a_worker_for_it_is_likened_to_no_task(svc, member):
    member(tasks=("swift", "shell"))
    ended = svc("run", "--wait", "--wait-timeout", "0.5", "--", "true")
    assert told(ended)[1].endswith("knows the task 'svc:shell'; start one with `--shell`")


def test_without_a_worker_it_says_so(svc):
    assert told(svc("submit", "t:f", *SHORT))[1] == "waits: no worker is connected"


def test_a_codec_that_nobody_accepts_is_told(svc, member):
    member(accept=("pickle",))
    assert "accepts the codec 'plain'" in told(svc("submit", "greet", *SHORT))[1]


def test_a_drain_is_told(svc, member):
    member()
    svc("drain", "--no-wait")
    assert told(svc("submit", "greet", *SHORT))[1] == (
        "waits: the service is draining; `svc resume` ends that"
    )


def test_a_delay_is_told(svc, member):
    member()
    assert told(svc("submit", "greet", "--delay", "1h", *SHORT))[1] == "waits for its delay to pass"


def test_a_job_that_waits_for_its_retry_says_why_it_failed(svc, consumer):
    thread = threading.Thread(target=consumer.fail, args=["no such mailbox", 3600.0])
    thread.start()
    ended = svc("submit", "t:f", *SHORT)
    thread.join()
    assert told(ended)[1] == "waits for its retry after a failed attempt (ValueError: no such mailbox)"


def test_a_job_that_runs_is_with_a_consumer(svc, consumer):
    taken = threading.Thread(target=consumer.broker.lease, kwargs={"limit": 1, "wait": timedelta(seconds=5)})
    taken.start()
    ended = svc("submit", "t:f", *SHORT)
    taken.join()
    assert told(ended)[1] == "is with the consumer w1/1"


def test_the_error_names_the_job_and_the_reason_too(svc, member):
    member()
    ended = svc("submit", "greeet", *SHORT)
    job, _ = told(ended)
    error = ended.err.splitlines()[-1]
    assert f"job {job} waits: no connected worker" in error
    assert f"`svc results {job}` waits again" in error


def test_results_tells_what_blocks_a_job_after_a_while(svc, member, monkeypatch):
    monkeypatch.setattr("svc.cli.waiting.LATER_SECONDS", 0.1)
    member()
    job = svc("submit", "greeet").out.strip()
    assert told(svc("results", job, "--wait-timeout", "0.5")) == (
        job, "waits: no connected worker of queue 'default' knows the task 'greeet'; did you mean greet?"
    )  # fmt: skip


def test_of_several_jobs_each_reason_is_told_once(svc, member, tmp_path):
    member()
    lines = ["greeet"] * 5 + ["nobody:f"] * 3
    (tmp_path / "jobs").write_text("".join(json.dumps({"task": task}) + "\n" for task in lines))
    ended = svc("submit", "--from", "jobs", *SHORT)
    first, second, error = ended.err.splitlines()
    assert "(and 4 more) waits" in first + second
    assert "(and 2 more) waits" in first + second
    assert error.startswith("svc: 8 jobs have not ended within 0.5 s")


def test_a_quick_job_says_nothing_but_its_result(svc, consumer):
    thread = threading.Thread(target=consumer.succeed, args=[lambda: "done"])
    thread.start()
    ended = svc("submit", "t:f", "--wait")
    thread.join()
    assert (ended.out, ended.err) == ("done\n", "")


def test_in_json_a_blocked_job_is_an_object_and_the_error_has_the_ids(svc):
    ended = svc("submit", "t:f", "--json", *SHORT)
    waiting, error = map(json.loads, ended.err.splitlines())
    assert waiting["waiting"]["reason"] == "waits: no worker is connected"
    assert error["error"]["job_ids"] == waiting["waiting"]["ids"]


@pytest.mark.parametrize(
    "argv",
    [["submit", "t:f", "--wait"], ["submit", "--from", "jobs", "--wait"], ["results", "--from", "ids"]],
)
def test_ctrl_c_names_the_jobs_that_go_on(svc, monkeypatch, tmp_path, argv):
    def interrupt(self, wanted) -> None:
        raise KeyboardInterrupt

    (tmp_path / "jobs").write_text('{"task": "t:f"}\n' * 12)
    (tmp_path / "ids").write_text(svc("submit", "--from", "jobs").out)
    monkeypatch.setattr("svc.cli.waiting.AwaitedJobs.tell_reasons", interrupt)
    ended = svc(*argv)
    assert (ended.code, ended.out) == (130, "")
    ready = {job["id"] for job in svc("jobs", "list", "--json").json}
    assert len(ready & set(ended.err.split())) == (1 if "t:f" in argv else 10)
    assert ("and 2 more" in ended.err) == ("t:f" not in argv)


def test_a_key_that_may_not_look_waits_as_before_and_asks_once(svc, queue, monkeypatch):
    asked = []

    def refuse(self, ids):
        asked.append(ids)
        raise Forbidden("no")

    monkeypatch.setattr(LocalBroker, "get", refuse)
    ended = svc("submit", "t:f", "--wait", "--wait-timeout", "1")
    assert ended.code == 124
    assert "job has not ended within 1 s and will go on" in ended.err
    assert len(asked) == 1


def test_what_changes_is_told_again(svc, queue):
    came = threading.Timer(0.4, lambda: Consumer(queue, TASKS))
    came.start()
    ended = svc("submit", "greeet", "--wait", "--wait-timeout", "3")
    came.join()
    first, second, _ = ended.err.splitlines()
    assert first.endswith("no worker is connected")
    assert second.endswith("did you mean greet?")
