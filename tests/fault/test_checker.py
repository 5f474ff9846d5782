"""The checker sees each kind of violation, and the textbook service fails it while svc does not."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fault.site import ACTOR, TASKS, WORK
from tests.support.checker import Books, Checker, Expectation, Job, parse_counts, read_books
from tests.support.findings import Findings, table
from tests.support.history import (
    OK,
    STOOD_STILL,
    UNKNOWN,
    Call,
    Drain,
    Execution,
    Fault,
    History,
    Step,
    StreamRead,
    read_calls,
    read_executions,
)
from tests.support.processes import Service
from tests.support.resources import Excess
from tests.support.svc import until
from tests.support.textbook_service import TextbookService

POISON = {"poison": Expectation("dead", 3)}


def sound() -> tuple[History, Books]:
    """Two jobs, and a drain after them; the second job ran twice because its first process was killed."""
    calls = [Call("a", "submit", 0, 2, 0.0, 0.1, OK, 3.0), Call("a", "submit", 2, 1, 0.2, 3.2, UNKNOWN, 3.0)]
    runs = [Execution("a-0", 1, 1.0, 1.1), Execution("a-1", 1, 1.2), Execution("a-1", 2, 1.5, 1.6)]
    faults = [Fault("kill", 1.3, 1.3, frozenset({1}), fatal=True)]
    jobs = [Job(f"o-{n}", f"a-{n}", "work", "default", ["succeeded"], [f"a-{n}"]) for n in range(2)]
    counted = {("default", "succeeded"): 2, ("default", "ready"): 0}
    steps = [*_steps(1, 1.2, 0, (1, 2)), *_steps(2, 1.5, 2, (3,))]
    history = History(calls, runs, faults, [Drain(4.0, 5.0, 6.0, 0)], [], {"a-0": "succeeded"}, steps)
    return history, Books({j.id: j for j in jobs}, counted)


def _steps(pid: int, at: float, got: int, kept: tuple[int, ...]) -> list[Step]:
    """Return what an attempt at the second job did: it went on at a checkpoint, and kept others."""
    steps = [Step("a-1", pid, 100, at, "begun", got)]
    for number in kept:
        at += 0.01
        steps += [Step("a-1", pid, 100, at, kind, number, number == 1) for kind in ("asked", "kept")]
    return steps


def test_a_sound_history_has_no_violations():
    findings = Checker(*sound(), POISON).check()

    assert findings.violations == []
    assert (findings.lost, findings.twice, findings.invented) == (0, 0, 0)
    assert (findings.explained, findings.unexplained) == (1, 0)
    assert findings.recoveries["kill"] == [pytest.approx(0.2)]


def test_findings_add_up():
    """Suites with other faults (in a journal's file, in the network) bring rows of their own."""
    findings, other = Checker(*sound(), POISON).check(), Checker(*sound(), POISON).check()
    findings.add(other)

    assert (findings.jobs, findings.explained, findings.faults["kill"]) == (4, 2, 2)
    assert "| kill | 2 | 2 | 0.20 s | 0.20 s | – |" in table(findings)


def test_the_table_tells_what_was_left_over_and_what_could_not_be_dealt_in_the_order_of_the_matrix():
    findings = Findings(undealt={"F10 partition": "there is no `ip`"}, faults=Counter({"F2 kill": 3}))
    findings.left_over["F2 kill"] = Excess("memory", "the manager", 3 << 20, 0.04)

    assert table(findings).splitlines()[2:4] == [
        "| F2 kill | 3 | 0 | – | – | memory +3.0 MiB (4.0%) |",
        "| F10 partition | not dealt: there is no `ip` | – | – | – | – |",
    ]


def test_a_long_fault_is_found_behind_many_short_ones():
    history, books = sound()
    short = [Fault("kill", at, at, frozenset({9}), fatal=True) for at in (0.1, 0.2, 1.0, 1.1, 1.4)]
    history.faults[:] = [Fault("freeze", 0.0, 1.3, frozenset({1})), *short]

    findings = Checker(history, books, POISON).check()

    assert findings.violations == []
    assert findings.repeats == {"freeze": 1}


def lose(history: History, books: Books) -> None:
    del books.jobs["o-0"]


def leave_unfinished(history: History, books: Books) -> None:
    books.jobs["o-0"].ends.clear()


def invent_an_execution(history: History, books: Books) -> None:
    history.executions.append(Execution("ghost-7", 1, 2.0, 2.1))


def invent_a_result(history: History, books: Books) -> None:
    del history.executions[0]


def record_twice(history: History, books: Books) -> None:
    books.jobs["o-0"].ends.append("succeeded")


def mix_up_results(history: History, books: Books) -> None:
    books.jobs["o-0"].results = ["a-1"]


def repeat_without_fault(history: History, books: Books) -> None:
    history.faults.clear()


def repeat_beside_a_fault_of_another(history: History, books: Books) -> None:
    history.faults[0] = replace(history.faults[0], pids=frozenset({77}))


def repeat_twice_for_one_fault(history: History, books: Books) -> None:
    history.executions.append(Execution("a-1", 3, 9.0, 9.1))


def give_up_early(history: History, books: Books) -> None:
    books.jobs["o-1"].ends = ["dead"]


def exceed_a_budget(history: History, books: Books) -> None:
    books.jobs["o-0"] = Job("o-0", "a-0", "poison", "default", ["dead"], charged=Counter(crashed=4))


def forgive_a_poison(history: History, books: Books) -> None:
    books.jobs["o-0"].task = "poison"


def make_two_jobs_of_one(history: History, books: Books) -> None:
    books.jobs["o-9"] = replace(books.jobs["o-0"], id="o-9")


def answer_late(history: History, books: Books) -> None:
    history.calls[0] = replace(history.calls[0], returned=5.5)


def never_answer(history: History, books: Books) -> None:
    history.calls[1] = replace(history.calls[1], returned=None)


def run_in_a_drain(history: History, books: Books) -> None:
    history.executions[0].start, history.executions[0].end = 5.5, 5.6


def fail_a_drain(history: History, books: Books) -> None:
    history.drains[0] = replace(history.drains[0], still=None, code=124)


def leave_a_drain_badly(history: History, books: Books) -> None:
    history.drains[0] = replace(history.drains[0], workers=(0, 1))


def accept_a_result_after_a_cancel(history: History, books: Books) -> None:
    history.cancels["a-0"] = "cancelled"
    books.jobs["o-0"].ends = ["cancelled", "succeeded"]


def let_a_cancelled_job_go_on(history: History, books: Books) -> None:
    history.cancels["a-0"] = "leased"


def go_on_at(number: int) -> Callable[[History, Books], None]:
    def damage(history: History, books: Books) -> None:
        place = next(i for i, step in enumerate(history.checkpoints) if (step.pid, step.kind) == (2, "begun"))
        history.checkpoints[place] = replace(history.checkpoints[place], number=number)

    return damage


def lose_the_durable_one(history: History, books: Books) -> None:
    """The worker is lost, too: only the durable checkpoint has to be there."""
    history.faults[0] = replace(history.faults[0], pids=frozenset({1, 100}))
    go_on_at(0)(history, books)


def begin_at_a_checkpoint(history: History, books: Books) -> None:
    history.checkpoints[0] = replace(history.checkpoints[0], number=1)


def miscount(history: History, books: Books) -> None:
    books.counted = {("default", "succeeded"): 1, ("default", "ready"): 1}


def read(history: History, books: Books, values: list[list[object]], *, ended: bool = True) -> None:
    """A client has read *values* of the first job, which has given two."""
    books.jobs["o-0"].given = [["a-0", 1, 0], ["a-0", 1, 1]]
    history.streams.append(StreamRead("a-0", 1, values, ended))


def mix_two_streams(history: History, books: Books) -> None:
    read(history, books, [["a-0", 1, 0], ["a-0", 2, 1]], ended=False)


def skip_a_partial_result(history: History, books: Books) -> None:
    read(history, books, [["a-0", 1, 0], ["a-0", 1, 2]], ended=False)


def begin_a_stream_late(history: History, books: Books) -> None:
    read(history, books, [["a-0", 1, 1]], ended=False)


def end_a_stream_early(history: History, books: Books) -> None:
    read(history, books, [["a-0", 1, 0]])


def test_a_stream_that_is_whole_or_a_prefix_is_sound():
    history, books = sound()
    read(history, books, [["a-0", 1, 0], ["a-0", 1, 1]])
    read(history, books, [["a-0", 7, 0]], ended=False)
    read(history, books, [], ended=False)

    assert Checker(history, books, POISON).check().violations == []


@pytest.mark.parametrize(
    ("damage", "invariant"),
    [
        (lose, "I1"), (leave_unfinished, "I1"), (invent_an_execution, "I2"), (invent_a_result, "I2"),
        (record_twice, "I3"), (mix_up_results, "I3"), (repeat_without_fault, "I4"),
        (repeat_beside_a_fault_of_another, "I4"), (repeat_twice_for_one_fault, "I4"),
        (give_up_early, "I5"), (exceed_a_budget, "I5"), (forgive_a_poison, "I5"),
        (make_two_jobs_of_one, "I7"),
        (answer_late, "I10"), (never_answer, "I10"), (run_in_a_drain, "I12"), (fail_a_drain, "I12"),
        (leave_a_drain_badly, "I12"), (miscount, "I18"),
        (mix_two_streams, "I19"), (skip_a_partial_result, "I19"), (begin_a_stream_late, "I19"),
        (end_a_stream_early, "I19"),
        (accept_a_result_after_a_cancel, "I13"), (let_a_cancelled_job_go_on, "I13"),
        (go_on_at(1), "I14"), (go_on_at(3), "I14"), (lose_the_durable_one, "I14"),
        (begin_at_a_checkpoint, "I14"),
    ],
)  # fmt: skip
def test_the_checker_sees(damage: Callable[[History, Books], None], invariant: str):
    history, books = sound()
    damage(history, books)

    violations = Checker(history, books, POISON).check().violations

    assert [line for line in violations if line.startswith(f"{invariant}:")]


@pytest.mark.parametrize(("stood_until", "violations"), [(3.2, 1), (4.4, 0)])
def test_a_call_is_given_the_time_in_which_the_machine_stood_still(stood_until: float, violations: int):
    history, books = sound()
    answer_late(history, books)
    history.faults.append(Fault(STOOD_STILL, 2.9, stood_until, None, injected=False))

    assert len(Checker(history, books, POISON).check().violations) == violations


def test_only_a_durable_checkpoint_has_to_outlive_a_worker():
    history, books = sound()
    history.faults[0] = replace(history.faults[0], pids=frozenset({1, 100}))
    go_on_at(1)(history, books)

    assert Checker(history, books, POISON).check().violations == []


def test_counts_are_read_from_an_exposition():
    text = '# HELP x\nsvc_queue_jobs{queue="default",state="ready"} 3.0\nsvc_queue_jobs_other 1\n'
    assert parse_counts(text) == {("default", "ready"): 3}


# --- the same faults, twice -------------------------------------------------------------------------------


@pytest.mark.slow
def test_svc_passes_and_the_textbook_service_fails_under_the_same_faults(tmp_path: Path):
    found = {}
    for name in ("textbook", "svc"):
        folder = tmp_path / name
        folder.mkdir()
        found[name] = _break(
            TextbookService(folder) if name == "textbook" else Service(folder, TASKS), folder
        )

    assert found["svc"].violations == []
    assert found["svc"].jobs > 20
    assert found["textbook"].lost > 3
    assert any(line.startswith("I1:") for line in found["textbook"].violations)


def _break(target: TextbookService | Service, folder: Path) -> Findings:
    """Kill waiting and working stock consumers, and the manager, with the same seed for each target."""
    dice = random.Random(3)
    faults: list[Fault] = []
    target.start_manager()
    producer = _actor(target, folder, "produce", "producer0")
    names = [f"consumer{place}" for place in range(4)]
    consumers = [_actor(target, folder, "consume", name) for name in names]
    try:
        for strike in range(8):
            place = dice.randrange(len(consumers))
            # A kill of one that does not wait for jobs yet would show nothing.
            until(lambda: _has_run(folder, names[place]), f"{names[place]} runs jobs")  # noqa: B023 - called at once
            time.sleep(dice.uniform(0.3, 0.6))
            faults.append(_kill(consumers[place]))
            names[place] = f"successor{strike}"
            consumers[place] = _actor(target, folder, "consume", names[place])
        at = time.monotonic()
        target.kill_manager()
        target.start_manager()
        faults.append(Fault("kill -9 the manager", at, time.monotonic()))
        for process in (producer, *consumers):
            process.wait(60)
        producer = _actor(target, folder, "produce", "producer1")
        consumers = [_actor(target, folder, "consume", f"late{place}") for place in range(2)]
        time.sleep(1.0)
        faults.append(_kill(producer))
        _settle(target, folder)
    finally:
        faults += [_kill(process) for process in (producer, *consumers)]
        target.close()
    history = History(read_calls(folder), read_executions(folder), faults)
    books = read_books(target.own_records()) if isinstance(target, Service) else _naive_books(history)
    return Checker(history, books).check()


def _actor(target: TextbookService | Service, folder: Path, role: str, name: str) -> subprocess.Popen[bytes]:
    host, _, port = target.listen.rpartition(":")
    key = target.authkey_file.read_bytes().hex()
    arguments = [role, host, port, key, name, str(folder), WORK]
    return subprocess.Popen([sys.executable, str(ACTOR), *arguments], stderr=subprocess.DEVNULL)


def _has_run(folder: Path, name: str) -> bool:
    log = folder / "executions" / f"{name}.jsonl"
    return log.exists() and log.stat().st_size > 0


def _kill(process: subprocess.Popen[bytes]) -> Fault:
    at = time.monotonic()
    process.kill()
    process.wait()
    return Fault("kill -9 a stock client", at, time.monotonic(), frozenset({process.pid}), fatal=True)


def _settle(target: TextbookService | Service, folder: Path) -> None:
    """Wait until all is done, or nothing has run for two seconds: the textbook service cannot tell."""
    if isinstance(target, Service):
        with target.broker() as broker:
            until(lambda: not any(each.ready + each.leased for each in broker.stats().queues), "all is done")
        return
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 2.0:
        time.sleep(0.2)
        count = len(read_executions(folder))
        if count != seen:
            seen, since = count, time.monotonic()


def _naive_books(history: History) -> Books:
    """Return books for the textbook service, which has none: each completed execution counts for it."""
    ended = {run.label for run in history.executions if run.end is not None}
    return Books({label: Job(label, label, WORK, "default", ["succeeded"]) for label in ended})
