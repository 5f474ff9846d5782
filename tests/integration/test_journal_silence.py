"""The servers of the journal give no answer while clients submit: what the leader tells, and to whom."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection

import pytest

from svc.app.process import READY_SECONDS
from svc.errors import ManagerUnreachable
from tests.support.managers import Managers, managers, metrics_of
from tests.support.nats_servers import running_nats
from tests.support.prometheus import RULES, program
from tests.support.workers import until

#: Seconds from one scrape of the shipped settings to the next; Prometheus waits no longer for an answer.
SCRAPE_SECONDS = 10


@contextmanager
def submitting(made: Managers) -> Iterator[None]:
    """Submit jobs one after the other, as long as the block runs; calls that get no answer are made again."""
    ended = threading.Event()

    def submit() -> None:
        with made.client() as client:
            while not ended.is_set():
                with suppress(ManagerUnreachable):
                    client.submit("tests.support.worker_tasks:noop")

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


def figure(made: Managers, name: str) -> float:
    """Return a figure of the leader; -1 if it is late, as a busy one may be."""
    with suppress(OSError):
        return metrics_of(made.http[0])[name]
    return -1.0


def until_found(claim: Callable[[], dict[str, float] | None]) -> dict[str, float]:
    """Return the value of *claim* once there is one."""
    found: list[dict[str, float]] = []

    def is_found() -> bool:
        found.extend(filter(None, [claim()]))
        return bool(found)

    until(is_found, 60)
    return found[0]


@pytest.fixture(scope="module")
def silent(tmp_path_factory) -> Iterator[Managers]:
    """A leader under load whose servers have given no answer for some seconds."""
    folder = tmp_path_factory.mktemp("silent")
    with running_nats(folder / "nats") as server, managers(folder, server, "q") as made:
        made.start(0)
        until(lambda: made.ready(0)[0] == 200, 60)
        with submitting(made):
            until(lambda: figure(made, "svc_journal_commit_seconds_count") > 20, 60)
            server.freeze(0)
            until(lambda: figure(made, "svc_manager_unsure") == 1, 60)
            yield made
            server.thaw(0)


@pytest.mark.slow
def test_the_metrics_come_in_time_and_say_so(silent):
    def in_time() -> dict[str, float] | None:
        """Return the metrics, unless a busy machine has been late with them; those that wait always are."""
        time.sleep(1.1)  # the same text is given again for a second
        begun = time.monotonic()
        with suppress(OSError):
            told = metrics_of(silent.http[0])
            return told if time.monotonic() - begun < READY_SECONDS < SCRAPE_SECONDS else None
        return None

    for _ in range(3):
        told = until_found(in_time)
        assert told["svc_manager_unsure"] == 1
        assert told['svc_manager_role{role="leader"}'] == 1
        assert told["svc_journal_unconfirmed_seconds"] > 1
        assert told["process_resident_memory_bytes"] > 0
    assert silent.events(0, "http_route_failed") == []


@pytest.mark.slow
def test_a_poller_of_the_figures_for_scaling_is_told_at_once_to_ask_again(silent):
    host, port = silent.http[0].split(":")

    def told() -> str:
        with closing(HTTPConnection(host, int(port), timeout=30)) as connection:
            connection.request("GET", "/api/v1/scale")
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("Retry-After")) == (503, "1")
            return answer.read().decode()

    # A route that waits for an answer says that none came in time; so may this one on a busy machine.
    for _ in range(3):
        until(lambda: "not sure that it leads" in told(), 30)


@pytest.mark.slow
def test_the_alert_fires_from_what_the_leader_tells(silent, tmp_path):
    series = [
        {"series": f'{name}{{job="svc-manager", instance="m1"}}', "values": f"{value:g}x8"}
        for name, value in metrics_of(silent.http[0]).items()
        if name in ("svc_manager_unsure", "svc_journal_unconfirmed_seconds")
    ]
    annotations = {
        "summary": "The servers of the journal do not answer.",
        "description": "The manager at m1 gets no answer from a majority of the NATS servers. Nothing is "
        "accepted, handed out or recorded until they answer.",
        "runbook_url": "docs/runbooks/SvcJournalSilent.md",
    }
    fires = {
        "eval_time": "1m",
        "alertname": "SvcJournalSilent",
        "exp_alerts": [
            {
                "exp_labels": {"severity": "page", "job": "svc-manager", "instance": "m1"},
                "exp_annotations": annotations,
            }
        ],
    }
    test = {
        "rule_files": [str(RULES / "rules" / "alerts.yml")],
        "evaluation_interval": f"{SCRAPE_SECONDS}s",
        "tests": [
            {"interval": f"{SCRAPE_SECONDS}s", "input_series": series, "alert_rule_test": [fires]},
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(test))
    done = subprocess.run(
        [program("promtool"), "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_log_says_that_the_servers_are_silent(silent):
    until(lambda: silent.events(0, "journal_silent"), 30)
    told, *_ = silent.events(0, "journal_silent")  # told again each minute
    assert told["level"] == "warning"
    assert told["servers"] == silent.journal.removeprefix("nats://").partition("/")[0]
    assert told["silent_s"] >= 3
    assert silent.events(0, "journal_answers") == []


@pytest.mark.slow
@pytest.mark.parametrize("timeout", [2.0, 7.0])  # during its hello, and after one that has timed out
def test_a_client_that_gives_up_is_told_that_the_servers_are_silent(silent, timeout):
    def told() -> bool:
        """Whether the reason was told: the question for it may be late on a busy machine."""
        with silent.client(timeout=timeout) as client, pytest.raises(ManagerUnreachable) as raised:
            client.submit("tests.support.worker_tasks:noop")
        return bool(
            re.search(r"it leads, and has had no answer .* for \d+ s; nothing .* lost", str(raised.value))
        )

    until(told, 30)


@pytest.mark.slow
def test_status_and_log_name_the_leader_its_term_its_standbys_and_the_durability(tmp_path):
    with running_nats(tmp_path / "nats") as server, managers(tmp_path, server, "q") as made:
        made.start(0)
        until(lambda: made.ready(0)[0] == 200, 60)
        assert f"leader   {made.listen[0]}, term 1, no standbys\n" in made.svc("status").stdout
        (started,) = made.events(0, "manager_started")
        assert started["durability"] == "replicated"
        made.start(1)
        until(lambda: figure(made, "svc_manager_standbys") == 1, 60)
        assert f"leader   {made.listen[0]}, term 1, 1 standby\n" in made.svc("status").stdout
        told = json.loads(made.svc("status", "--json").stdout)
        assert (told["leader"], told["term"], told["standbys"]) == (made.listen[0], 1, 1)
        assert told["durability"] == "replicated"


@pytest.mark.slow
def test_the_log_says_when_the_servers_answer_again(tmp_path):
    with running_nats(tmp_path / "nats") as server, managers(tmp_path, server, "q") as made:
        made.start(0)
        until(lambda: made.ready(0)[0] == 200, 60)
        server.freeze(0)
        until(lambda: made.events(0, "journal_silent"), 30)
        server.thaw(0)
        until(lambda: made.events(0, "journal_answers"), 30)
        (told,) = made.events(0, "journal_answers")
        assert (told["level"], told["silent_s"] >= 3) == ("info", True)
