"""`make bench` works and prints the promised rows; no time is ever asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import heavy
from benchmarks.__main__ import command_line
from benchmarks.measures import MEASURES

ROOT = Path(__file__).parents[2]
TYPER = "python -c 'import typer'"
#: The measures of every run, and the systems that each must have.
PROMISED = {
    "no-op jobs, end to end": {"svc, fsync", "multiprocessing.Pool", "ProcessPoolExecutor"},
    "CPU of manager, 1,000 jobs": {"svc, fsync"},
    "CPU of consumers, 1,000 jobs": {"svc, fsync", "multiprocessing.Pool", "ProcessPoolExecutor"},
    "1 KiB jobs, end to end": {"svc, fsync", "multiprocessing.Pool", "ProcessPoolExecutor"},
    "multiple of the Pool, no-op jobs": {"svc, fsync"},
    "multiple of the Pool, 1 KiB jobs": {"svc, fsync"},
    "multiple at 1 KiB beside that of no-op": {"svc, fsync"},
    "submit alone": {"svc, fsync"},
    "round trip p50": {"svc, fsync", "multiprocessing.Pool", "ProcessPoolExecutor"},
    "round trip p99": {"svc, fsync", "multiprocessing.Pool", "ProcessPoolExecutor"},
    "round trip p99.9": {"svc, fsync", "multiprocessing.Pool", "ProcessPoolExecutor"},
    "Executor.submit one by one, end to end": {"svc, fsync", "ProcessPoolExecutor"},
    "Executor.submit one by one, the calls alone": {"svc, fsync", "ProcessPoolExecutor"},
    "textbook: 40 jobs of 0.1 s": {"svc, fsync", "multiprocessing.Pool", "ProcessPoolExecutor"},
    "stock put+get+task_done, 1 client": {"svc, fsync", "stdlib BaseManager"},
    "stock put+get+task_done, 4+4 clients": {"svc, fsync", "stdlib BaseManager"},
    "stock, 1 client: server's processor time": {"svc, fsync", "stdlib BaseManager"},
    "stock, 4+4 clients: server's processor time": {"svc, fsync", "stdlib BaseManager"},
    "stock connect + first call": {"svc, fsync", "stdlib BaseManager"},
    "RSS of manager": {"svc, fsync"},
    "flood: jobs against calm": {"svc, fsync, from one address", "svc, fsync, from 100 addresses"},
    "flood: CPU of the attackers": {"svc, fsync, from one address", "svc, fsync, from 100 addresses"},
    "flood: connect + call p99": {"svc, fsync, from one address", "svc, fsync, calm around from one address"},
    "start to end of a command": {"svc --help", "svc health", "svc status", "python -c pass", TYPER},
    "worker of 4 consumers, start to ready": {"svc, fsync"},
}
#: The measures that run on request only, each with the systems or sizes that it compares.
HEAVY = {
    "large value, submit to result": {"24 MiB, bytes as argument", "24 MiB, a file there and back"},
    "memory of manager, large value": {"24 MiB, bytes as argument", "24 MiB, bytes as result"},
    "memory of client beside the value": {"24 MiB, bytes as argument", "24 MiB, bytes as result"},
    "memory of consumer beside the value": {"24 MiB, bytes as argument", "24 MiB, bytes as result"},
    "large arguments and results": {"4 jobs of 1 MiB, fsync", "the disk, synced"},
    "CPU of manager, 1 MiB of large jobs": {"4 jobs of 1 MiB, fsync"},
    "peak RSS of manager, large jobs": {"4 jobs of 1 MiB, fsync"},
    "CPU of manager, consumers idle": {"40 consumers", "4 consumers"},
    "RSS of manager, consumers idle": {"40 consumers", "4 consumers"},
    "messages to consumers for one job": {"40 consumers", "4 consumers"},
    "no-op jobs, submit to last report": {"40 consumers", "4 consumers"},
    "jobs taken from a backlog": {"2,000 waiting", "10,000 waiting"},
    "peak RSS of manager, backlog": {"2,000 waiting", "10,000 waiting"},
    "longest turn of the manager's loop": {"2,000 waiting", "10,000 waiting"},
    "killed manager, start to ready": {"2,000 waiting", "10,000 waiting"},
    "longest turn, or sync of a page": {"400 jobs, 100 kept, fsync", "the disk, synced"},
    "peak RSS of manager, dead jobs": {"40 dead jobs, 4 attempts each, equal tracebacks"},
    "sleeps of 20 ms": {"no recycling", "--recycle-jobs 50"},
    "fewest consumers at any look": {"no recycling", "--recycle-jobs 50"},
    "floor of a round trip": {"4 messages, 3 processes", "one page, synced"},
    "floor of arguments and results": {"SQLite alone, 1 KiB", "SQLite alone, 16 MiB"},
    "floor of CPU, 1,000 jobs carried": {"1 KiB", "3 bytes"},
    "floor of stock clients, 4+4": {"one thread alone"},
    "attack: CPU of the longest turn": {"57 MB of pings in a frame, by submit (at most 50)"},
    "attack: CPU between two answers": {"57 MB of pings in a frame, by submit (at most 50)"},
    "attack: peak RSS of manager": {"57 MB of pings in a frame, by submit"},
    "attack: all within the bounds": {"57 MB of pings in a frame, by submit"},
    "CPU of manager, a grant beside many priorities": {"10 lanes", "1,000 lanes"},
    "CPU of manager, a grant beside many tasks": {"10 lanes", "1,000 lanes"},
    "CPU of manager, a grant beside many queues": {"10 lanes", "1,000 lanes"},
    "killed manager, start to first answer": {
        "2,000 jobs submitted 1,000 at a time",
        "2,000 jobs submitted one by one, and merged since",
        "2,000 jobs submitted one by one, all in the last minute",
        "2,000 jobs with a key each",
        "2,000 jobs with a delay of its own each",
    },
    "memory of manager for each waiting job": {
        "2,000 jobs with a key each",
        "2,000 jobs with a delay of its own each",
        "2,000 jobs with neither",
    },
    "no-op jobs on the stream": {"of bare nats-py work queue", "of svc, fsync"},
    "stream": {"2,000 jobs, finished and forgotten"},
    "recovery": {"2,000 jobs wait, cold: start to first answer", "2,000 jobs wait, warm: takeover to ready"},
    "round trip p50, beside a backlog": {"svc, fsync", "svc, stream of 3 servers"},
    "jobs that wait at once": {"50 coroutines that wait 1 s, 1 consumer, fsync"},
    "no-op jobs by the size of lists": {"no batch, fsync", "batch=1, fsync", "batch=100, fsync"},
    "shell commands": {"20 x true, svc run, fsync"},
    "no-op jobs with output": {"captured", "not captured"},
    "print to `svc logs --follow`": {"median", "longest"},
    "flood of output": {"1 job of 4 MB", "4 jobs of 1 MB", "a pipe that is only read"},
    "files of output": {"1 job of 4 MB", "4 jobs of 1 MB", "4 jobs of 1 MB, the bound"},
    "growth of manager in a flood": {"1 job of 4 MB", "4 jobs of 1 MB"},
    "CPU of manager, jobs that report": {"20 jobs, silent", "20 jobs, progress", "20 jobs, both"},
    "reports of a job that arrived": {"20 jobs, progress, mean", "20 jobs, both, least"},
    "link: tasks of 5 ms": {
        "8 local processes, the ideal",
        "ProcessPoolExecutor, 0 ms one way",
        "svc, fsync, 0 ms one way",
        "svc, fsync, 2 ms one way",
    },
    "link: no-op jobs": {"svc, fsync, 0 ms one way", "svc, fsync, 2 ms one way"},
    "link: round trip": {"direct, no proxy", "0 ms one way", "2 ms one way"},
    "mixed load: all jobs": {
        "8 local processes, the ideal",
        "ProcessPoolExecutor, 0 ms one way",
        "svc, fsync, 2 ms one way",
    },
    "mixed load: short jobs": {"8 local processes, the ideal", "svc, fsync, 2 ms one way"},
    "2 clients, one job at a time each": {"svc, fsync, 0 ms one way"},
    "no-op jobs on 3 hosts x 8 consumers": {"svc, fsync, 1 ms one way"},
    "one long job: all short ones ended": {
        "of another task, first, 2 ms one way",
        "of the same task, first, 2 ms one way",
        "of the same task, amid the others, 2 ms one way",
        "of the same task, amid the others, 2 ms one way, the bound",
    },
    "taking back: a consumer was idle": {"2 ms one way, longest", "2 ms one way, bound"},
    "restart: from start until all are back": {"10 workers, 30 connections"},
    "end beyond a timeout of 1 s": {
        "sleep",
        "loop of NumPy",
        "loop in C",
        "regular expression",
        "socket.recv",
    },
    "end after a cancel, grace 1 s": {"sleep", "loop of NumPy", "loop in C"},
}


@pytest.mark.slow
def test_the_benchmark_prints_every_promised_row_with_its_ratio_and_writes_the_same_as_json(tmp_path):
    output = tmp_path / "figures.json"
    run, document = smoke(output, "--only", *MEASURES)
    figures = {(each["measure"], each["system"]): each for each in document["figures"]}
    assert {(measure, system) for measure, those in PROMISED.items() for system in those} <= set(figures)
    for figure in figures.values():
        times = 2 if "calm around" in figure["system"] else 1  # before and after the flood
        assert len(figure["rounds"]) == times * document["rounds"] == times

    header, *lines = run.stdout.splitlines()
    assert header.split() == [
        "measure",
        "system",
        "median",
        "unit",
        "/",
        "Pool",
        "/",
        "Executor",
        "/",
        "BaseManager",
        "/",
        "base",
    ]
    assert len(lines) == len(figures)
    starts = [header.index(name) for name in ("system", "median")]
    for line, figure in zip(lines, figures.values(), strict=True):
        assert line[starts[0] :].startswith(figure["system"])
    for measure, those in PROMISED.items():
        for reference in those - {"svc, fsync"}:
            assert figures[measure, reference]["ratios"].get(reference) in (1.0, None)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)  # each measure is a run of its own, and has its own bound
def test_the_measures_that_are_done_only_when_asked_for_have_their_rows(tmp_path):
    documents = [smoke(tmp_path / f"{name}.json", "--only", name)[1] for name in heavy.HEAVY]
    figures = {(each["measure"], each["system"]): each for found in documents for each in found["figures"]}
    assert {(measure, system) for measure, those in HEAVY.items() for system in those} <= set(figures)
    assert figures["messages to consumers for one job", "40 consumers"]["median"] == 1
    assert figures["reports of a job that arrived", "20 jobs, both, least"]["median"] > 0
    assert figures["taking back: jobs that ran twice", "2 ms one way"]["median"] == 0
    assert figures["taking back: jobs that never ran", "2 ms one way"]["median"] == 0
    # Retention has its own moments: it need not have come to all of them yet.
    assert figures["jobs forgotten meanwhile", "400 jobs, 100 kept, fsync"]["median"] <= 300


def smoke(output, *flags):
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--smoke",
        "--durability",
        "fsync",
        "--output",
        str(output),
    ]
    run = subprocess.run(
        [*command, "--output", str(output), *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run, json.loads(output.read_text())


def test_the_former_name_of_a_measure_still_chooses_it():
    chosen = command_line().parse_args(["--only", "siege", "seed", "noop"])
    assert chosen.only == ["flood", "textbook", "noop"]
