"""The processes of `svc worker`, as docs/workers.md describes them."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from svc.worker.library_threads import LIBRARIES, OPENMP
from tests.support.readme import blocks, section
from tests.support.svc import ROOT, Host, end, until

PAGE = ROOT / "docs" / "workers.md"
VARIABLES = (OPENMP, *LIBRARIES)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A manager, and a folder for the modules of tasks."""
    host = Host(tmp_path)
    host.env = {name: value for name, value in host.env.items() if name not in VARIABLES}
    manager = host.start_manager("127.0.0.1:0", "--journal", "jobs.sqlite", "--durability", "memory")
    yield host
    end(manager)
    host.log.close()


@pytest.fixture
def run(host: Host) -> Iterator[Callable[..., Any]]:
    """Start a worker for a module `mytasks` with this source; it is ended after the test."""
    workers = []

    def start(source: str, *flags: str) -> Any:
        (host.folder / "mytasks.py").write_text(source)
        worker, _ = host.start("worker", "--tasks", "mytasks", *(flags or ("--consumers", "1")))
        workers.append(worker)
        return worker

    yield start
    end(*workers)


def result(host: Host, task: str, *arguments: str) -> Any:
    """Return the result of one job."""
    asked = host.svc("submit", f"mytasks:{task}", *arguments, "--wait")
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


VARIABLES_TASK = f"""
import os, subprocess
def variables():
    return [os.environ.get(name) for name in {VARIABLES}]
def of_a_program():
    return subprocess.check_output(["sh", "-c", "echo $OMP_NUM_THREADS"], text=True).strip()
"""


def test_libraries_in_consumers_and_their_programs_start_one_thread_each(host: Host, run):
    run(VARIABLES_TASK)
    assert result(host, "variables") == ["1"] * len(VARIABLES)
    assert result(host, "of_a_program") == 1


def test_the_number_of_threads_that_the_user_has_set_stays(host: Host, run):
    host.env["OMP_NUM_THREADS"] = "4"
    run(VARIABLES_TASK)
    assert result(host, "variables") == ["4", *[None] * len(LIBRARIES)]


def test_the_hooks_of_the_page_open_and_close_a_database(host: Host, run):
    (source,) = blocks(section("Hooks: a model, a pool of connections", PAGE), "python")
    worker = run(source)
    assert [result(host, "order", name) for name in ("tea", "milk")] == [1, 2]
    end(worker)
    assert worker.returncode == 0


def test_the_module_of_the_page_is_loaded_once_for_all_consumers(host: Host, run):
    text = section("Preload: memory that consumers share", PAGE)
    (source,), (command,) = blocks(text, "python"), blocks(text)
    (host.folder / "lookup.py").write_text(f"{source}\nimport os\nLOADED_BY = os.getpid()\n")
    flags = shlex.split(command)[4:]
    assert flags[0] == "--preload"
    run(
        "import lookup, os\ndef price(n: int): return [lookup.PRICES[n], lookup.LOADED_BY == os.getppid()]\n",
        *flags,
    )
    assert result(host, "price", "21") == [42, True]


@pytest.mark.parametrize("keeps", [True, False])
def test_the_program_of_the_page_answers_for_many_jobs_if_the_task_keeps_it(host: Host, run, keeps: bool):
    (source,) = blocks(section("Processes that tasks start", PAGE), "python")
    assert source.count("@task(keep_children=True)") == 1
    source = source if keeps else source.replace("(keep_children=True)", "")
    run(f"{source}\ndef process():\n    return speller.pid if speller.poll() is None else 0\n")
    assert host.svc("submit", "mytasks:spell", "colours", "--wait").stdout == "colors\n"
    process = result(host, "process")
    assert host.svc("submit", "mytasks:spell", "discoloured", "--wait").stdout == "discolored\n"
    assert (result(host, "process") == process != 0) is keeps


def test_the_limits_of_the_page_are_taken(host: Host, run):
    (command,) = blocks(section("Recycling: consumers that are replaced from time to time", PAGE))
    run("def one(): return 1\n", *shlex.split(command)[4:])
    assert result(host, "one") == 1


@pytest.mark.parametrize(
    "flags",
    [("--recycle-jobs", "0"), ("--recycle-jobs", "-1"), ("--recycle-age", "nan"), ("--recycle-rss", "1")],
)
def test_a_limit_that_no_consumer_can_keep_is_refused(flags: tuple[str, str], host: Host):
    refused = host.svc("worker", "--tasks", "mytasks", "--http", "off", *flags)
    assert refused.returncode == 2
    assert flags[0] in refused.stderr


@pytest.mark.slow
def test_a_worker_of_the_page_ends_once_there_is_no_job_and_not_before(host: Host, run):
    (command,) = blocks(section("Workers that come and go", PAGE))
    for _ in range(3):
        assert host.svc("submit", "mytasks:short").returncode == 0
    # Longer than the idle time, so a worker that only looked for new jobs would leave it.
    last = host.svc("submit", "mytasks:longer")
    source = "import time\ndef short(): return 1\ndef longer():\n    time.sleep(3)\n    return 2\n"
    worker = run(source, *shlex.split(command)[4:])
    assert worker.wait(60) == 0
    assert '"limit":"idle"' in (host.folder / "log").read_text()
    assert host.svc("results", last.stdout.strip()).stdout.split()[-1] == "2"


@pytest.mark.slow
def test_a_worker_whose_time_is_over_gives_its_running_job_back_uncharged(host: Host, run):
    sent = host.svc("submit", "mytasks:long")
    source = "import pathlib, time\ndef long():\n    pathlib.Path('begun').touch()\n    time.sleep(600)\n"
    for limit in ("2s", "6s", "25s"):  # on a slow machine the job has not begun within the first
        worker = run(source, "--time-limit", limit, "--grace", "0")
        assert worker.wait(60) == 0
        if (host.folder / "begun").exists():
            break
    shown = json.loads(host.svc("jobs", "show", sent.stdout.strip(), "--json").stdout)
    assert (shown["state"], shown["interruptions"], shown["failures"]) == ("ready", 1, 0)


def test_a_worker_and_what_it_has_preloaded_are_new_after_a_reload(host: Host, run):
    (host.folder / "lookup.py").write_text("VALUE = 1\n")
    worker = run(
        "import lookup\ndef value(): return lookup.VALUE\n", "--consumers", "1", "--preload", "lookup"
    )
    assert result(host, "value") == 1
    (host.folder / "lookup.py").write_text("VALUE = 1000\n")
    worker.send_signal(signal.SIGHUP)
    until(lambda: '"consumer_left"' in (host.folder / "log").read_text(), "the old consumer has left")
    assert result(host, "value") == 1000
