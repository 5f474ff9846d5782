from __future__ import annotations

import dataclasses
import signal

import pytest
from structlog.testing import CapturingLogger

from svc.domain.commands import Lost, Nack, Release
from svc.domain.job import SHELL, Cause
from svc.worker.attempt_limits import SPARE_SECONDS
from svc.worker.consumer_exit import ConsumerExit, Killed, ReplacementReason, pause_before
from svc.worker.process import describe_exit
from svc.worker.slot import Phase, SlotState


def consumer_exit(
    phase: Phase, code: int = 1, killed: Killed | None = None, failures: int = 0
) -> ConsumerExit:
    look = SlotState(phase, False, "", "", "", 42, 3, 10.0, 0.0, False, 7, 8, failures, 2, 0.5, 1.0)
    return ConsumerExit("w-1", code, look, killed, at=12.0)


def test_a_death_at_work_charges_the_executing_job_with_the_cause() -> None:
    (lost,) = consumer_exit(Phase.BUSY, -signal.SIGSEGV).reports(0.0)
    assert isinstance(lost, Lost)
    assert (lost.consumer, lost.token, lost.number, lost.seconds) == ("w-1", 7, 42, 2.0)
    assert "killed by signal 11 (SIGSEGV)" in lost.error.message


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.IDLE])
def test_a_death_with_nothing_to_do_charges_no_job(phase: Phase) -> None:
    (lost,) = consumer_exit(phase).reports(0.0)
    assert isinstance(lost, Lost)
    assert lost.token == 0


@pytest.mark.parametrize("killed", [None, Killed.OFFENDED, Killed.ORPHANED, Killed.CANCELLED])
def test_a_death_with_several_jobs_at_work_charges_none_and_makes_all_suspects(killed: Killed | None) -> None:
    (lost,) = consumer_exit(Phase.SHARED, -9, killed).reports(0.0)
    assert isinstance(lost, Lost)
    assert (lost.token, lost.suspect) == (0, True)


def test_a_timeout_with_several_jobs_at_work_charges_the_one_that_the_slot_shows() -> None:
    nack, lost = consumer_exit(Phase.SHARED, -9, Killed.TIMED_OUT).reports(0.0)
    assert isinstance(nack, Nack)
    assert (nack.token, nack.number, nack.cause) == (7, 42, Cause.TIMED_OUT)
    assert isinstance(lost, Lost)
    assert (lost.token, lost.suspect) == (0, False)


def test_a_command_that_stops_its_consumer_ran_over_the_timeout_of_its_job() -> None:
    ended = consumer_exit(Phase.BUSY, -9, Killed.TIMED_OUT)
    look = ended.look._replace(task=SHELL, timeout=3.0 + SPARE_SECONDS)
    assert "its timeout of 3 s" in dataclasses.replace(ended, look=look).error.message


@pytest.mark.parametrize(
    "killed", [None, Killed.OFFENDED, Killed.ORPHANED, Killed.TIMED_OUT, Killed.MEMORY, Killed.CANCELLED]
)
def test_the_death_of_a_list_and_its_limits_charge_none_and_make_all_suspects(killed: Killed | None) -> None:
    (lost,) = consumer_exit(Phase.LISTED, -9, killed).reports(0.0)
    assert isinstance(lost, Lost)
    assert (lost.token, lost.suspect) == (0, True)


def test_the_end_of_a_workers_grace_makes_no_suspects_of_a_list() -> None:
    release, lost = consumer_exit(Phase.LISTED, -9, Killed.GRACE).reports(0.0)
    assert isinstance(release, Release)
    assert isinstance(lost, Lost)
    assert not lost.suspect


@pytest.mark.parametrize(("failures", "retry_in"), [(0, 0.25), (1, 0.5), (2, None)])
def test_a_timeout_is_a_failure_that_is_tried_again_by_the_policy(
    failures: int, retry_in: float | None
) -> None:
    nack, lost = consumer_exit(Phase.BUSY, -9, Killed.TIMED_OUT, failures).reports(0.0)
    assert isinstance(nack, Nack)
    assert (nack.token, nack.number, nack.cause, nack.retry_in) == (7, 42, Cause.TIMED_OUT, retry_in)
    assert nack.error.type == "TimedOut"
    assert isinstance(lost, Lost)
    assert lost.token == 0


def test_a_job_killed_at_the_end_of_the_grace_goes_back_uncharged() -> None:
    release, lost = consumer_exit(Phase.BUSY, -9, Killed.GRACE).reports(0.0)
    assert release == Release(7, 42, started=True, seconds=2.0)
    assert isinstance(lost, Lost)
    assert lost.token == 0


def test_a_job_whose_consumer_died_with_the_forkserver_gets_a_suspicion_and_no_crash() -> None:
    orphan = consumer_exit(Phase.BUSY, 255, Killed.ORPHANED)
    release, lost = orphan.reports(0.0)
    assert release == Release(7, 42, started=True, seconds=2.0, suspect=True)
    assert isinstance(lost, Lost)
    assert (lost.token, lost.suspect, lost.error.type) == (0, False, "Interrupted")
    assert "forkserver" in lost.error.message
    assert orphan.reason is ReplacementReason.LOST


@pytest.mark.parametrize(
    ("phase", "killed", "suspect"),
    [
        (Phase.IDLE, None, True),
        (Phase.IDLE, Killed.ORPHANED, True),
        (Phase.BUSY, Killed.ORPHANED, True),
        (Phase.RENEWING, Killed.LINGERED, True),
        (Phase.STOPPING, Killed.LINGERED, False),
        (Phase.IDLE, Killed.LINGERED, False),
        (Phase.IDLE, Killed.GRACE, False),
    ],
)
def test_who_dies_with_unsent_outcomes_leaves_suspects(
    phase: Phase, killed: Killed | None, suspect: bool
) -> None:
    """Nobody can tell whether the job that executes or one before it was to blame."""
    found = consumer_exit(phase, -9, killed)
    (lost,) = dataclasses.replace(found, look=found.look._replace(unsent=True)).reports(0.0)
    assert isinstance(lost, Lost)
    assert (lost.token, lost.suspect) == (0, suspect)


@pytest.mark.parametrize(("phase", "token", "suspect"), [(Phase.BUSY, 7, False), (Phase.DAMAGED, 0, True)])
def test_damage_is_a_crash_and_its_job_a_suspect_if_the_slot_does_not_tell_it(
    phase: Phase, token: int, suspect: bool
) -> None:
    (lost,) = consumer_exit(phase, -9, Killed.DAMAGED).reports(0.0)
    assert isinstance(lost, Lost)
    assert (lost.token, lost.suspect, lost.error.type) == (token, suspect, "ConsumerDied")


def test_a_job_that_told_its_worker_to_stop_has_crashed() -> None:
    offence = consumer_exit(Phase.BUSY, -9, Killed.OFFENDED)
    (lost,) = offence.reports(0.0)
    assert isinstance(lost, Lost)
    assert (lost.token, lost.number, lost.suspect, lost.error.type) == (7, 42, False, "StopSignalSent")
    assert (offence.outcome, offence.reason) == (Cause.CRASHED, ReplacementReason.CRASHED)


@pytest.mark.parametrize("phase", [Phase.PILLED, Phase.DRAINED, Phase.STOPPING])
def test_who_leaves_as_told_is_not_reported(phase: Phase) -> None:
    assert consumer_exit(phase, 0).orderly
    assert consumer_exit(phase, 0).reports(0.0) == []


def test_who_leaves_without_a_goodbye_is_reported_and_nobody_is_suspected() -> None:
    """The manager may have granted it jobs of which it has not heard."""
    left = consumer_exit(Phase.UNTOLD, 0)
    assert left.orderly
    (lost,) = left.reports(0.0)
    assert isinstance(lost, Lost)
    assert (lost.token, lost.suspect) == (0, False)


def test_who_dies_while_leaving_is_reported_lost() -> None:
    assert not consumer_exit(Phase.PILLED, -9).orderly
    assert consumer_exit(Phase.PILLED, -9).pilled
    assert len(consumer_exit(Phase.PILLED, -9).reports(0.0)) == 1


def test_an_exit_by_code_0_at_work_is_a_death_all_the_same() -> None:
    """A task that calls os._exit(0) has not answered."""
    (lost,) = consumer_exit(Phase.BUSY, 0).reports(0.0)
    assert isinstance(lost, Lost)
    assert (lost.token, "exit code 0" in lost.error.message) == (7, True)


@pytest.mark.parametrize(
    ("phase", "killed", "reason"),
    [
        (Phase.BUSY, None, ReplacementReason.CRASHED),
        (Phase.BUSY, Killed.TIMED_OUT, ReplacementReason.TIMED_OUT),
        (Phase.IDLE, None, ReplacementReason.LOST),
        (Phase.STARTING, None, ReplacementReason.OTHER),
    ],
)
def test_the_reason_for_a_replacement(phase: Phase, killed: Killed | None, reason: ReplacementReason) -> None:
    assert consumer_exit(phase, -9, killed).reason is reason


def test_who_was_killed_by_a_job_is_replaced_at_once() -> None:
    assert pause_before(ReplacementReason.CRASHED, 0) == pause_before(ReplacementReason.TIMED_OUT, 0) == 0.0


def test_who_cannot_start_is_replaced_ever_more_slowly() -> None:
    pauses = [pause_before(ReplacementReason.OTHER, failures) for failures in range(1, 12)]
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses[-1] == 30.0


def test_who_dies_with_nothing_to_do_is_not_replaced_in_a_tight_loop() -> None:
    assert pause_before(ReplacementReason.LOST, 0) > 0


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1, "exit code 1"),
        (-11, "killed by signal 11 (SIGSEGV)"),
        (-9, "killed by signal 9 (SIGKILL); perhaps the host or the container ran out of memory"),
        (-200, "killed by signal 200 (unknown)"),
    ],
)
def test_an_exit_is_described(code: int, text: str) -> None:
    assert describe_exit(code) == text


@pytest.mark.parametrize(
    ("killed", "stopping", "level"),
    [
        (Killed.GRACE, True, "info"),
        (Killed.ORPHANED, True, "info"),
        (Killed.ORPHANED, False, "warning"),
        (Killed.TIMED_OUT, True, "warning"),
        (Killed.HUNG, False, "warning"),
    ],
)
def test_a_kill_that_belongs_to_a_stop_is_no_warning(killed: Killed, stopping: bool, level: str) -> None:
    log = CapturingLogger()
    consumer_exit(Phase.IDLE, -9, killed).log(log, 1, expected=False, stopping=stopping)
    assert [(call.args[0], call.method_name) for call in log.calls] == [("consumer_killed", level)]


def test_of_a_worker_that_can_never_work_only_ends_with_a_job_are_logged() -> None:
    log = CapturingLogger()
    consumer_exit(Phase.IDLE, -9, Killed.GRACE).log(log, 1, expected=True, stopping=True)
    consumer_exit(Phase.IDLE, -9).log(log, 1, expected=True, stopping=True)
    assert log.calls == []


@pytest.mark.parametrize(
    ("phase", "killed", "known"),
    [
        (Phase.BUSY, None, True),
        (Phase.BUSY, Killed.TIMED_OUT, True),
        (Phase.BUSY, Killed.CANCELLED, True),
        (Phase.SHARED, Killed.TIMED_OUT, True),
        (Phase.SHARED, Killed.CANCELLED, False),
        (Phase.SHARED, None, False),
        (Phase.LISTED, Killed.TIMED_OUT, False),
        (Phase.SHARED, Killed.GRACE, False),
        (Phase.IDLE, None, False),
        (Phase.STARTING, Killed.HUNG, False),
    ],
)
def test_the_log_of_an_end_names_its_job_if_that_is_known(
    phase: Phase, killed: Killed | None, known: bool
) -> None:
    log = CapturingLogger()
    found = consumer_exit(phase, -9, killed)
    look = found.look._replace(origin="origin", task="m:f")
    dataclasses.replace(found, look=look).log(log, 1, expected=False, stopping=False)
    named = {key: log.calls[-1].kwargs[key] for key in ("job_id", "task") if key in log.calls[-1].kwargs}
    assert log.calls[-1].args[0] in {"consumer_killed", "consumer_died"}
    assert named == ({"job_id": "origin-42", "task": "m:f"} if known else {})
