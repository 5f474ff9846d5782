"""Shell commands as attempts: each kind of end is one clear outcome, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svc.codec import PLAIN, decode_result, encode_arguments
from svc.domain.field_bounds import TRACEBACK_MAX
from svc.domain.job import SHELL, Cause, OutputStream, Terms
from svc.domain.replies import Delivery
from svc.worker import offspring
from svc.worker.attempt_limits import SPARE_SECONDS
from svc.worker.capture import Capture
from svc.worker.context import run_as_current
from svc.worker.exit_codes import exit_code_of
from svc.worker.failure import Failure
from svc.worker.offspring import Process, adopt_orphans, descendants
from svc.worker.registry import Registry
from svc.worker.runner import ResolvedTask, Runner
from svc.worker.shell import Shell


@pytest.fixture(autouse=True)
def before() -> Iterator[set[Process]]:
    """Make this process a subreaper, as a consumer is; yield the children of other tests."""
    adopt_orphans()
    yield descendants(os.getpid())
    offspring._prctl(offspring._PR_SET_CHILD_SUBREAPER, 0)


def resolved(**terms: Any) -> ResolvedTask:
    registry = Registry([Shell(1000).task()])
    return Runner(registry, (PLAIN,), 1 << 20).resolve(Terms(SHELL, **terms))


def run(*argv: str | bytes, retry_on: list[int] | None = None, **terms: Any) -> Any:
    more = {} if retry_on is None else {"retry_on": retry_on}
    ended = resolved(**terms).run(encode_arguments(PLAIN, [list(argv)], more))
    return ended if isinstance(ended, Failure) else decode_result(ended)


def failure(*argv: str | bytes, **options: Any) -> Failure:
    found = run(*argv, **options)
    assert isinstance(found, Failure), found
    return found


def test_the_outcome_has_exit_code_outputs_and_duration():
    found = run("sh", "-c", "echo out; echo err >&2; sleep 0.01")
    seconds = found.pop("seconds")
    assert found == {
        "exit_code": 0, "stdout": "out\n", "stderr": "err\n", "stdout_bytes": 4, "stderr_bytes": 4,
    }  # fmt: skip
    assert 0.01 <= seconds < 30


def test_no_shell_reads_the_arguments():
    assert run("printf", "%s|", "$HOME; `id` * ", "a\nb", "")["stdout"] == "$HOME; `id` * |a\nb||"


def test_arguments_that_are_no_text_arrive_as_they_are():
    assert run("printf", "%s", b"\xff\xfe")["stdout"] == b"\xff\xfe"


class Written(Capture):
    def __init__(self) -> None:
        self.chunks: list[tuple[OutputStream, bytes]] = []

    def write(self, stream: OutputStream, chunk: bytes) -> None:
        self.chunks.append((stream, chunk))

    def of(self, stream: OutputStream) -> bytes:
        return b"".join(chunk for each, chunk in self.chunks if each is stream)


def test_all_output_is_captured_with_its_streams_apart():
    written = Written()
    registry = Registry([Shell(100, written).task()])
    script = "seq 20000; printf 'err\\377' >&2"
    Runner(registry, (PLAIN,), 1 << 20).resolve(Terms(SHELL)).run(
        encode_arguments(PLAIN, [["sh", "-c", script]], {})
    )
    assert written.of(OutputStream.STDOUT) == b"".join(b"%d\n" % number for number in range(1, 20001))
    assert written.of(OutputStream.STDERR) == b"err\xff"


def test_a_command_finds_the_names_of_its_job_in_its_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OWN", "kept")
    monkeypatch.setenv("SVC_JOB_ID", "of-the-worker")
    task = resolved(queue="späte")
    script = 'echo "$SVC_JOB_ID $SVC_JOB_TASK $SVC_JOB_QUEUE $SVC_JOB_ATTEMPT $OWN"'
    body = encode_arguments(PLAIN, [["sh", "-c", script]], {})
    delivery = Delivery(1, "origin", 7, task.terms, [body], 2, 1, 0, 0.0, 0.0)
    result = run_as_current(task, delivery, 7, body)
    assert not isinstance(result, Failure)
    assert decode_result(result)["stdout"] == "origin-7 svc:shell späte 4 kept\n"
    assert os.environ["SVC_JOB_ID"] == "of-the-worker"


def test_standard_input_is_empty():
    assert run("cat")["stdout"] == ""


def test_a_command_has_default_signals_and_its_own_process_group():
    script = "trap; grep -E 'Sig(Blk|Ign)' /proc/self/status; cut -d' ' -f5 /proc/self/stat; echo $$"
    *masks, group, own = run("sh", "-c", script)["stdout"].split("\n")[:4]
    of_the_c_library = 1 << 31 | 1 << 32  # signals 32 and 33, which no program can set
    assert all(int(line.split()[1], 16) & ~of_the_c_library == 0 for line in masks), masks
    assert group == own


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "exit code 3"),
        ("echo one >&2; echo no space left >&2; exit 1", "exit code 1: no space left"),
        ("kill -SEGV $$", "killed by signal 11 (SIGSEGV)"),
        ("printf '\\377' >&2; exit 2", "exit code 2: \\xff"),
    ],
)
def test_any_other_exit_code_and_a_signal_is_a_failure_with_its_number(script: str, message: str):
    found = failure("sh", "-c", script)
    assert (found.error.type, found.error.message) == ("CommandFailed", message)
    assert (found.cause, found.permanent) == (Cause.FAILED, False)


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "echo exit code 9 >&2; exit 255"], 255),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -40 $$"], 168),
        (["no-such-program"], 127),
        (["/"], 126),
    ],
)
def test_the_exit_code_can_be_read_from_the_error(argv: list[str | bytes], code: int):
    assert exit_code_of(failure(*argv).error) == code


def test_a_command_that_was_killed_at_its_timeout_has_no_exit_code():
    assert exit_code_of(failure("sleep", "60", timeout=0.1).error) is None


def test_a_failure_tells_the_ends_of_both_outputs():
    shown = failure("sh", "-c", "echo out; echo err >&2; exit 1").error.traceback
    assert shown == "stderr:\nerr\n\nstdout:\nout\n"
    registry = Registry([Shell(1 << 20).task()])
    script = "seq 100000; seq 100000 >&2; exit 1"
    body = encode_arguments(PLAIN, [["sh", "-c", script]], {})
    found = Runner(registry, (PLAIN,), 1 << 20).resolve(Terms(SHELL)).run(body)
    assert isinstance(found, Failure)
    assert len(found.error.traceback) <= TRACEBACK_MAX
    assert found.error.traceback.endswith("100000\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["./no-such-program"], "this worker has no program './no-such-program'"),
        (["no-such-program"], "this worker has no program 'no-such-program'"),
        (
            ["echo hi | wc"],
            "this worker has no program 'echo hi | wc'; for a line of shell code write sh -c '…'",
        ),
        ([b"\xff"], "this worker has no program '\\udcff'"),
        (["/etc/passwd"], "the program '/etc/passwd' cannot be started: Permission denied"),
        (["echo", "x" * 200_000], "the program 'echo' cannot be started: Argument list too long"),
    ],
)
def test_a_command_that_cannot_start_says_why(argv: list[str | bytes], message: str):
    found = failure(*argv)
    assert (found.error.type, found.error.message) == ("CommandNotStarted", message)


@pytest.mark.parametrize(
    ("script", "codes", "permanent"),
    [
        ("exit 75", [75], False),
        ("exit 1", [75], True),
        ("exit 1", [], True),
        ("kill -KILL $$", [137], False),
        ("kill -KILL $$", [9], True),
    ],
)
def test_exit_codes_that_are_named_are_tried_again_and_no_others(
    script: str, codes: list[int], permanent: bool
):
    assert failure("sh", "-c", script, retry_on=codes).permanent is permanent


def test_a_missing_program_counts_as_exit_code_127():
    assert failure("no-such-program", retry_on=[127]).permanent is False
    assert failure("no-such-program", retry_on=[75]).permanent is True


def test_a_command_is_not_tried_again_unless_its_job_says_so():
    assert resolved().policy.retries == 0
    assert resolved(retries=2).policy.retries == 2


def test_a_timeout_kills_the_command_and_keeps_its_output(before: set[Process]):
    started = time.monotonic()
    found = failure("sh", "-c", "trap '' TERM INT HUP; echo begun; sleep 60", timeout=0.3)
    assert 0.3 <= time.monotonic() - started < 30
    assert (found.error.type, found.cause, found.permanent) == ("TimedOut", Cause.TIMED_OUT, False)
    assert "timeout of 0.3 s" in found.error.message
    assert found.error.traceback == "stdout:\nbegun\n"
    assert descendants(os.getpid()) <= before


def test_the_supervisor_steps_in_only_after_the_command_should_have_ended():
    assert resolved(timeout=5.0).limits.timeout == 5.0 + SPARE_SECONDS
    assert resolved().limits.timeout is None


@pytest.mark.parametrize("start", ["sleep 60 &", "setsid sleep 60 &", "(setsid sh -c 'sleep 60 & wait' &);"])
def test_processes_that_a_command_leaves_behind_die_with_the_attempt(start: str, before: set[Process]):
    started = time.monotonic()
    assert run("sh", "-c", f"{start} echo begun")["stdout"] == "begun\n"
    assert time.monotonic() - started < 30
    assert descendants(os.getpid()) <= before


def test_a_command_whose_child_holds_its_output_open_ends_at_once():
    started = time.monotonic()
    assert run("sh", "-c", "sleep 60 & exec >&- 2>&-; exit 0")["exit_code"] == 0
    assert time.monotonic() - started < 30


def test_a_deleted_working_directory_stops_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run("echo", "here")["stdout"] == "here\n"
    assert failure("cat", "./missing").error.message.startswith("exit code 1: cat: ")


def test_an_endless_output_is_bounded_and_counted():
    found = run("head", "-c", "100000000", "/dev/zero")
    assert found["stdout_bytes"] == 100_000_000
    assert len(found["stdout"]) < 1100


def test_an_exception_in_the_middle_leaves_neither_process_nor_descriptor(
    monkeypatch: pytest.MonkeyPatch, before: set[Process]
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    open_before = open_descriptors()
    monkeypatch.setattr("svc.worker.command._wait", interrupted)
    assert failure("sleep", "60").error.type == "KeyboardInterrupt"
    assert descendants(os.getpid()) <= before
    assert open_descriptors() <= open_before


def test_no_attempt_leaves_a_descriptor_open():
    open_before = open_descriptors()
    for argv in (["true"], ["false"], ["no-such-program"], ["sh", "-c", "exec >&- 2>&-; sleep 0.05"]):
        run(*argv)
    assert open_descriptors() <= open_before


@pytest.mark.parametrize(
    "args",
    [[], ["true"], [["true"], "x"], [[1]], [["true"], [1.5]], [[]], [[""]], [["echo", "a\0b"]], [[b"\0"]]],
)
def test_arguments_that_are_no_command_are_refused(args: list[object]):
    found = resolved().run(encode_arguments(PLAIN, args, {}))
    assert isinstance(found, Failure)
    assert (found.error.type, found.cause) == ("ArgumentError", Cause.REFUSED)


def open_descriptors() -> set[tuple[str, str]]:
    """Return them with what they are of: those of earlier tests may be closed at any time."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that reads the directory
            found.add((each.name, str(each.readlink())))
    return found
