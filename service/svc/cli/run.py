"""`svc run`: shell commands as jobs, one from the arguments, or one for each line of a file."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from svc.cli.input import BadLine, NumberedJobs, lines_of
from svc.cli.options import (
    Delay,
    JobTimeout,
    Json,
    MaxRss,
    Ndjson,
    Parser,
    Priority,
    Queue,
    Quiet,
    Strict,
    Wait,
    WaitTimeout,
    integer,
    seconds,
)
from svc.cli.output import Printer, tell, tell_lines, write_exact
from svc.cli.results import print_outcomes
from svc.cli.submit import Submission
from svc.cli.wiring import open_client
from svc.client.specs import JobSpec
from svc.declarations import Number, parse_integer
from svc.domain.job import SHELL
from svc.domain.limits import NUMBER_MAX
from svc.domain.retry import DEFAULT_BACKOFF, MAX_BACKOFF
from svc.errors import ConfigurationError, JobError, ServiceError
from svc.settings import RemoteSettings
from svc.wire import MESSAGE_BYTES_MAX

if TYPE_CHECKING:
    from svc.client.specs import Options
    from svc.domain.job import Outcome

#: The words of a command in which each line takes this place.
PLACE = b"{}"


def _exit_codes(text: str) -> tuple[int, ...]:
    """Return the exit codes in a comma-separated list."""
    read = Number(parse_integer, "1", "255")
    return tuple(read(part.strip()) for part in text.split(","))


def run(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    ctx: typer.Context,
    settings: RemoteSettings,
    command: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARG]...", help="The command.")],
    each_line: Annotated[
        str, typer.Option("--each-line", metavar="FILE|-", help="Run it for each line; - is stdin.")
    ] = "",
    null: Annotated[
        bool, typer.Option("--null", help="Lines end with a NUL byte, as those of `find -print0`.")
    ] = False,
    queue: Queue = "default",
    priority: Priority = 0,
    delay: Delay = 0.0,
    retries: Annotated[
        int,
        typer.Option(
            "--retries", parser=integer(0, NUMBER_MAX), metavar="N", help="Attempts after the first."
        ),
    ] = 0,
    retry_on: Annotated[
        Any,
        typer.Option(
            "--retry-on",
            parser=Parser(_exit_codes),
            metavar="CODE[,…]",
            show_default="all but 0",
            help="Exit codes after which it is tried again; 128 and the number for a signal.",
        ),
    ] = None,
    backoff: Annotated[
        float,
        typer.Option(
            "--backoff",
            parser=seconds("0", f"{MAX_BACKOFF:g}s"),
            metavar="SECONDS",
            help="Wait at most so long before the first retry; doubled for each further one, up to an hour.",
        ),
    ] = DEFAULT_BACKOFF,
    job_timeout: JobTimeout = None,
    max_rss: MaxRss = None,
    strict: Strict = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = None,
    quiet: Quiet = False,
    json: Json = False,
    ndjson: Ndjson = False,
) -> int:
    """Run shell commands as jobs.

    Workers that were started with --shell run them. A command is a program and its arguments; no shell reads
    it, but for `sh -c '…'`. Options go before it.
    With --each-line, each line of the file is a job, without the empty ones: {} in a word of the command
    stands for the line, and if there is none the line is the last argument. With --wait the outputs are
    printed as the commands end; the exit code is 8 if one failed.
    """
    from svc.client.specs import Options

    if null and not each_line:
        raise ConfigurationError("--null says how the lines of --each-line end; name their file")
    if retry_on and not retries:
        raise ConfigurationError("--retry-on names the exit codes of --retries N, which is missing")
    options = Options(
        queue, priority, delay, "", retries, backoff, job_timeout, strict=strict, max_rss=max_rss
    )
    template = CommandTemplate(command, retry_on, options)
    out = Printer(json=json, ndjson=ndjson, single=not each_line)
    with open_client(ctx, settings, settings.timeout) as client, out:
        submission = Submission(client, options, out, wait, wait_timeout, quiet, print_outputs)
        if not each_line:
            return submission.one(template.job(command))
        return submission.each(each_line, lambda file: CommandLines(file, template, b"\0" if null else b"\n"))


class CommandTemplate:
    """A command in which lines take the place of `{}`.

    Args:
        command: its words, as Python has them from the command line.
        retry_on: the exit codes after which its jobs are tried again, or None for all.
        options: the options of its jobs.
    """

    def __init__(self, command: Sequence[str], retry_on: Sequence[int] | None, options: Options) -> None:
        words = [os.fsencode(word) for word in command]
        #: Words without a place are the same for each line.
        self._words = [word if PLACE in word else _argument(word) for word in words]
        if all(PLACE not in word for word in words):
            self._words.append(PLACE)
        self._more = [] if retry_on is None else [list(retry_on)]
        self._options = options

    def job(self, words: Sequence[str | bytes]) -> JobSpec:
        """Return the job that runs the command *words*."""
        return JobSpec(
            SHELL, [[_argument(os.fsencode(word)) for word in words], *self._more], {}, self._options
        )

    def of(self, line: bytes) -> JobSpec:
        """Return the job for *line*."""
        argv = [word if isinstance(word, str) else self._filled(word, line) for word in self._words]
        return JobSpec(SHELL, [argv, *self._more], {}, self._options)

    @staticmethod
    def _filled(word: bytes, line: bytes) -> str | bytes:
        return _argument(word.replace(PLACE, line)) if PLACE in word else word


def _argument(word: bytes) -> str | bytes:
    """Return an argument as a job has it: as text if it is UTF-8, else as bytes."""
    try:
        return word.decode()
    except UnicodeDecodeError:
        return word


class CommandLines(NumberedJobs):
    """The jobs of a command for the lines of an open file; empty lines are skipped."""

    def __init__(self, file: int, template: CommandTemplate, end: bytes) -> None:
        """Read the file descriptor *file*, whose lines have this *end*."""
        self.numbers: deque[int] = deque()
        self._file = file
        self._template = template
        self._end = end

    def __iter__(self) -> Iterator[JobSpec | ServiceError | None]:
        """Yield a job, or the error of a line; None if the input pauses."""
        number = 0
        for line in lines_of(self._file, self._end):
            if line is None:
                yield None
                continue
            number += 1
            if line:
                self.numbers.append(number)
                yield self._job(line)

    def _job(self, line: bytes) -> JobSpec | ServiceError:
        if len(line) > MESSAGE_BYTES_MAX:
            return BadLine(f"the line is longer than {MESSAGE_BYTES_MAX} bytes")
        if b"\0" in line:
            return BadLine("an argument of a command has no NUL byte; if lines end with one, say --null")
        return self._template.of(line)


def print_outputs(outcomes: Iterable[Outcome], out: Printer, *, named: bool) -> int:
    """Print the output of each command, as JSON the whole outcome; return 8 if one failed, else 0.

    Of a command that failed, the ends of both outputs, which its error has, go to stderr.
    """
    if not out.text:
        return print_outcomes(outcomes, out, named=named)
    from svc.cli.documents import failure_text, result_of
    from svc.domain.lifecycle import JobState

    failed = False
    for outcome in outcomes:
        if outcome.state != JobState.SUCCEEDED:
            failed = True
            if outcome.error is not None and outcome.error.traceback:
                tell_lines(outcome.error.traceback.removesuffix("\n"))
            tell(f"svc: {failure_text(outcome)} - `svc jobs show {outcome.id}` tells more")
            continue
        value, unreadable = result_of(outcome)
        if unreadable:
            tell(f"svc: job {outcome.id}: {unreadable}")
        elif isinstance(value, dict):
            _print_streams(value.get("stdout", ""), value.get("stderr", ""))
    return JobError.exit_code if failed else 0


def _print_streams(stdout: str | bytes, stderr: str | bytes) -> None:
    """Print what a command has written, as it has written it, but for what a terminal would obey."""
    if stderr:
        tell_lines(_text(stderr).removesuffix("\n"))
    if isinstance(stdout, bytes) and not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.write(stdout)
    elif stdout:
        write_exact(_text(stdout).removesuffix("\n"))
    sys.stdout.flush()


def _text(output: str | bytes) -> str:
    return output.decode("utf-8", "backslashreplace") if isinstance(output, bytes) else output
