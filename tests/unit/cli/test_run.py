"""`svc run`: words and lines become the arguments of commands, and outputs are printed as they were."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from svc.cli.program import run as run_program
from svc.domain import commands as c
from svc.domain.job import SHELL, ErrorInfo
from svc.wire import MESSAGE_BYTES_MAX
from tests.support.asking import record
from tests.unit.cli.conftest import Consumer


@pytest.fixture
def consumer(queue):
    return Consumer(queue, tasks=(SHELL,))


def ran(consumer, count=1, **result):
    """Take jobs; return the arguments of each."""
    seen = []

    def command(*args):
        seen.append(args if len(args) > 1 else args[0])
        return {"exit_code": 0, "stdout": "", "stderr": "", **result}

    while len(seen) < count:
        consumer.succeed(command)
    return seen


def fail(consumer, kind, message, kept=""):
    """Take a job and end it with an error."""
    (delivery,) = consumer.broker.lease(limit=1, wait=timedelta(seconds=5)).grant.deliveries
    record(consumer.broker, c.Nack(delivery.token, delivery.first, ErrorInfo(kind, message, kept)))


def lines(tmp_path, content):
    path = tmp_path / "lines"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    "words",
    [
        ["--", "ls", "-l", "--wait"],
        ["ls", "-l", "--wait"],
        ["--", "echo", "", " ", "a b", "$HOME", "{}", "--", "--json"],
        ["find", ".", "-exec", "rm", "{}", ";"],
    ],
)
def test_all_words_behind_the_program_are_its_own(svc, consumer, words):
    ended = svc("run", *words)
    assert (ended.code, len(ended.lines)) == (0, 1)
    assert ran(consumer) == [words[1:] if words[0] == "--" else words]


def test_a_word_that_is_no_text_arrives_as_bytes(svc, consumer):
    assert svc("run", "cat", "\udcff\udcfe").code == 0
    assert ran(consumer) == [["cat", b"\xff\xfe"]]


@pytest.mark.parametrize(
    ("command", "first", "second"),
    [
        (["cp", "{}", "{}.bak"], ["cp", "a b", "a b.bak"], ["cp", "-n;$x", "-n;$x.bak"]),
        (["x{}y{}"], ["xa bya b"], ["x-n;$xy-n;$x"]),
        (["{}"], ["a b"], ["-n;$x"]),
        (["wc", "-c"], ["wc", "-c", "a b"], ["wc", "-c", "-n;$x"]),
        (["echo", "{ }"], ["echo", "{ }", "a b"], ["echo", "{ }", "-n;$x"]),
    ],
)
def test_a_line_takes_the_places_or_is_the_last_argument(svc, consumer, tmp_path, command, first, second):
    ended = svc("run", "--each-line", lines(tmp_path, b"a b\n-n;$x\n"), "--", *command)
    assert (ended.code, len(ended.lines)) == (0, 2)
    assert ran(consumer, 2) == [first, second]


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        (b"a\n\n b \n\n", ["a", " b "]),
        (b"a\r\n\t\nlast", ["a\r", "\t", "last"]),
        (b"\xff\n{}\n", [b"\xff", "{}"]),
        (b"", []),
        (b"\n\n\n", []),
    ],
)
def test_lines_arrive_byte_for_byte_and_empty_ones_are_skipped(svc, consumer, tmp_path, content, arguments):
    ended = svc("run", "--each-line", lines(tmp_path, content), "echo")
    assert (ended.code, len(ended.lines)) == (0, len(arguments))
    assert ran(consumer, len(arguments)) == [["echo", each] for each in arguments]


def test_lines_may_end_with_a_nul_byte(svc, consumer, tmp_path):
    ended = svc("run", "--null", "--each-line", lines(tmp_path, b"a\nb\0\0c\0"), "echo")
    assert ended.code == 0
    assert ran(consumer, 2) == [["echo", "a\nb"], ["echo", "c"]]


def test_a_line_that_is_no_argument_is_told_with_its_number(svc, consumer, tmp_path):
    ended = svc("run", "--each-line", lines(tmp_path, b"a\nb\0c\nd\n"), "echo")
    assert (ended.code, len(ended.lines)) == (7, 2)
    assert "line 2: an argument of a command has no NUL byte" in ended.err
    assert ran(consumer, 2) == [["echo", "a"], ["echo", "d"]]


def test_a_line_that_no_message_has_room_for_is_told_and_the_others_go_on(svc, consumer, tmp_path):
    content = b"a\n" + b"x" * (MESSAGE_BYTES_MAX + 1) + b"\nc\n"
    ended = svc("run", "--each-line", lines(tmp_path, content), "echo")
    assert (ended.code, len(ended.lines)) == (7, 2)
    assert f"line 2: the line is longer than {MESSAGE_BYTES_MAX} bytes" in ended.err
    assert ran(consumer, 2) == [["echo", "a"], ["echo", "c"]]


@pytest.mark.parametrize(
    "line", ['a "b" c', "it's", "`id`", "$(id)", "a\\nb", "{}{}", "--help", "a;b|c&", "\x1b[2J"]
)
def test_no_quoting_of_a_line_is_read(svc, consumer, tmp_path, line):
    assert svc("run", "--each-line", lines(tmp_path, f"{line}\n".encode()), "echo", "<{}>", "{}").code == 0
    assert ran(consumer) == [["echo", f"<{line}>", line]]


def test_flags_become_the_terms_of_the_job(svc, consumer):
    flags = ["--queue", "default", "--priority", "7", "--retries", "2", "--job-timeout", "90s"]
    (job,) = svc("run", *flags, "--retry-on", "75,100", "true").lines
    shown = svc("jobs", "show", job, "--json").json
    assert (shown["task"], shown["priority"], shown["retries"], shown["timeout"]) == (SHELL, 7, 2, 90.0)
    assert ran(consumer) == [(["true"], [75, 100])]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--"],
        ["--each-line", "no-such-file", "echo"],
        ["--null", "echo"],
        ["--retry-on", "3", "echo"],
        ["--retries", "1", "--retry-on", "0", "echo"],
        ["--retries", "1", "--retry-on", "256", "echo"],
        ["--retries", "1", "--retry-on", "", "echo"],
        ["--retries", "1", "--retry-on", "x", "echo"],
        ["--retries", "-1", "echo"],
        ["--job-timeout", "0", "echo"],
        ["--job-timeout", "nan", "echo"],
        ["--unknown", "echo"],
    ],
)
def test_an_impossible_call_says_so(svc, argv):
    ended = svc("run", *argv)
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1


def test_wait_prints_the_output_as_it_was(svc, consumer):
    thread = threading.Thread(target=ran, args=[consumer], kwargs={"stdout": "a\nb\n", "stderr": "c\n"})
    thread.start()
    ended = svc("run", "--wait", "echo")
    thread.join()
    assert (ended.code, ended.out) == (0, "a\nb\n")
    assert "c" in ended.err.splitlines()


@pytest.mark.parametrize(("stdout", "printed"), [("", ""), ("no newline", "no newline\n"), ("\n\n", "\n\n")])
def test_an_output_ends_with_a_newline_if_there_is_one(svc, consumer, stdout, printed):
    thread = threading.Thread(target=ran, args=[consumer], kwargs={"stdout": stdout})
    thread.start()
    ended = svc("run", "--wait", "echo")
    thread.join()
    assert (ended.code, ended.out) == (0, printed)


def test_a_failed_command_is_told_and_the_exit_code_is_8(svc, consumer):
    thread = threading.Thread(target=consumer.fail, args=["exit code 3: no space left"])
    thread.start()
    ended = svc("run", "--wait", "echo")
    thread.join()
    assert (ended.code, ended.out) == (8, "")
    assert "exit code 3: no space left" in ended.err


def test_the_ends_of_the_outputs_of_a_failed_command_go_to_stderr(svc, consumer):
    kept = "stderr:\nno space left\n\nstdout:\n\x1b[31mhalf\n"
    thread = threading.Thread(
        target=fail, args=[consumer, "CommandFailed", "exit code 3: no space left", kept]
    )
    thread.start()
    ended = svc("run", "--wait", "cp")
    thread.join()
    assert (ended.code, ended.out) == (8, "")
    first, *_, shown, last = ended.err.splitlines()
    assert (first, shown) == ("stderr:", "\\x1b[31mhalf")
    assert last.startswith("svc: ")


@pytest.mark.parametrize(
    ("kind", "message", "code"),
    [
        ("CommandFailed", "exit code 3: no space left", 3),
        ("CommandFailed", "killed by signal 11 (SIGSEGV)", 139),
        ("CommandFailed", "(hidden)", None),
        ("TimedOut", "the command ran over its timeout of 5 s and was killed", None),
    ],
)
def test_json_has_the_exit_code_of_a_failed_command(svc, consumer, kind, message, code):
    thread = threading.Thread(target=fail, args=[consumer, kind, message])
    thread.start()
    ended = svc("run", "--wait", "--json", "cp")
    thread.join()
    assert (ended.code, ended.json["exit_code"], ended.json["value"]) == (8, code, None)


def test_json_has_the_whole_outcome(svc, consumer):
    thread = threading.Thread(target=ran, args=[consumer], kwargs={"stdout": b"\xff"})
    thread.start()
    found = svc("run", "--wait", "--json", "echo").json
    thread.join()
    assert (found["task"], found["value"]["exit_code"], found["value"]["stdout"]) == (SHELL, 0, "/w==")
    assert found["exit_code"] == 0


def test_json_behind_the_program_is_no_option_of_svc(capfd):
    assert run_program(["run", "--unknown", "--", "tool", "--json"]) == 2
    assert capfd.readouterr().err.startswith("svc: ")


def test_strict_refuses_a_command_if_no_worker_runs_any(svc):
    ended = svc("run", "--strict", "true")
    assert ended.code == 5
    assert SHELL in ended.err


def test_thousands_of_lines_are_jobs_of_one_submission_in_their_order(svc, consumer, tmp_path):
    ended = svc("run", "--each-line", lines(tmp_path, b"".join(b"%d\n" % n for n in range(3000))), "echo")
    assert (ended.code, len(ended.lines)) == (0, 3000)
    assert len({each.partition("-")[0] for each in ended.lines}) == 1
    assert [each.rpartition("-")[2] for each in ended.lines] == [str(number) for number in range(3000)]
    assert ran(consumer, 2) == [["echo", "0"], ["echo", "1"]]
