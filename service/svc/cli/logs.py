"""`svc logs`: the output of a job, also while it runs."""

from __future__ import annotations

import codecs
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from svc.cli.options import Json, Ndjson, integer
from svc.cli.output import Printer, tell
from svc.cli.waiting import AwaitedJobs
from svc.cli.wiring import open_client
from svc.domain.lifecycle import JobState
from svc.errors import ConfigurationError, UnknownJob
from svc.printable import printable_text
from svc.settings import RemoteSettings

if TYPE_CHECKING:
    from svc.client.client import BrokerClient
    from svc.domain.job import OutputPiece
    from svc.domain.replies import Logged

#: Seconds between two looks for more output.
_LOOK_SECONDS = 0.2
#: Seconds without news after the end of a job: its last output may come a little later than its outcome.
_LAST_SECONDS = 1.0
_STDOUT, _STDERR = 1, 2
_NAMES = {_STDOUT: "stdout", _STDERR: "stderr"}


class UnknownAttempt(UnknownJob):
    """There is no such attempt at the job."""

    code = "unknown_attempt"


def logs(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    ctx: typer.Context,
    settings: RemoteSettings,
    job: Annotated[str, typer.Argument(metavar="ID", help="Id of a job.")],
    attempt: Annotated[
        int | None,
        typer.Option(
            "--attempt", parser=integer(1, 1_000_000_000), metavar="N", help="This attempt; else the last."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what comes, until the job has ended.")
    ] = False,
    only_stdout: Annotated[bool, typer.Option("--stdout", help="Only what it wrote to stdout.")] = False,
    only_stderr: Annotated[
        bool, typer.Option("--stderr", help="Only what it wrote to stderr and logged.")
    ] = False,
    json: Json = False,
    ndjson: Ndjson = False,
) -> None:
    """Print the output of a job.

    That is what its task, C code and programs that it started wrote to stdout and stderr, and what it has
    logged; also while it runs and after it was killed. What is missing is told on stderr. A terminal gets
    it with control characters as escapes; a file or a pipe gets the bytes as they are. --follow also goes on
    with the next attempts.
    """
    if only_stdout and only_stderr:
        raise ConfigurationError("without --stdout and --stderr both streams are printed")
    stream = _STDOUT if only_stdout else _STDERR if only_stderr else 0
    with open_client(ctx, settings, settings.timeout) as client, Printer(json=json, ndjson=ndjson) as out:
        page = _Page(out)
        awaited = AwaitedJobs(client, [job], as_json=not out.text, again="logs") if follow else None
        for piece in _pieces(client, job, attempt or 0, stream, awaited):
            page.show(piece)
        page.end()
        if not page.begun:
            tell(f"svc: {_nothing(job, stream)}")


def _pieces(
    client: BrokerClient, job: str, attempt: int, stream: int, awaited: AwaitedJobs | None
) -> Iterator[OutputPiece]:
    """Yield the output of a job that there is; if it is *awaited*, also all that comes until it has ended.

    While it does not run, the reasons are told.
    """
    cursor, quiet_since = 0, time.monotonic()
    while True:
        part = client.logs(job, attempt=attempt, stream=stream, cursor=cursor)
        yield from part.pieces
        cursor = part.cursor
        if part.more:
            continue
        now = time.monotonic()
        ended = not part.state or JobState[part.state.upper()].finished
        if part.pieces or not ended:
            quiet_since = now
        if awaited is None or now - quiet_since >= _LAST_SECONDS:
            _check_attempt(job, attempt, part)
            return
        if not (ended or part.state == "leased"):
            awaited.tell_reasons([job])
        sys.stdout.flush()
        time.sleep(_LOOK_SECONDS)


def _check_attempt(job: str, attempt: int, part: Logged) -> None:
    """Check that there is an attempt *attempt* at a job, or was one.

    Raises:
        UnknownAttempt: there is none; the message says which there are.
    """
    if part.made is None or attempt <= part.made:
        return
    there_are = f"its attempts are 1 to {part.made}" if part.made > 1 else "its only attempt is 1"
    printed = f", with output: {', '.join(map(str, part.attempts))}" if part.attempts else ""
    raise UnknownAttempt(
        f"there is no attempt {attempt} at {job}; {there_are if part.made else 'none has begun'}{printed}"
    )


def _nothing(job: str, stream: int) -> str:
    if not stream:
        return f"there is no output of {job}"
    name = _NAMES[stream]
    return f"there is nothing on {name} of {job}; leave out --{name} for both streams"


class _Page:
    """Prints pieces of output one after the other."""

    def __init__(self, out: Printer) -> None:
        self.begun = False
        self._out = out
        self._attempt = 0
        self._last_stream = 0
        self._ends: dict[int, int] = {}
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        self._line_open = False
        self._terminal = sys.stdout.isatty()

    def show(self, piece: OutputPiece) -> None:
        """Print a piece, and tell what is missing before it."""
        stream = int(piece.stream)
        self._turn_to(piece.attempt, stream)
        end = self._ends.get(stream, 0)
        if piece.offset > end:
            self._break_line()
            tell(f"svc: {piece.offset - end} bytes of {_NAMES[stream]} are not kept")
        data = piece.data[max(0, end - piece.offset) :]
        self._ends[stream] = max(end, piece.offset + len(piece.data))
        if not self._out.text:
            text = self._decoder(stream).decode(data)
            document = {"attempt": piece.attempt, "stream": _NAMES[stream], "offset": piece.offset}
            self._out.item({**document, "text": text}, "")
        elif data:
            self._print(stream, data)

    def end(self) -> None:
        """End the last line on a terminal."""
        if self._terminal:
            self._break_line()

    def _turn_to(self, attempt: int, stream: int) -> None:
        """Begin with another attempt or stream, on a line of its own."""
        if attempt != self._attempt and self.begun:
            self._break_line()
            tell(f"svc: attempt {attempt}")
        if attempt != self._attempt:
            self._ends, self._decoders = {}, {}
        if stream != self._last_stream:
            self._break_line()
        self._attempt, self._last_stream, self.begun = attempt, stream, True

    def _print(self, stream: int, data: bytes) -> None:
        if self._terminal:
            # What comes in several pieces may be one character.
            sys.stdout.write(printable_text(self._decoder(stream).decode(data)))
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        self._line_open = not data.endswith(b"\n")

    def _decoder(self, stream: int) -> codecs.IncrementalDecoder:
        if stream not in self._decoders:
            self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        return self._decoders[stream]

    def _break_line(self) -> None:
        if self._line_open and self._out.text:
            sys.stdout.write("\n")
        sys.stdout.flush()
        self._line_open = False
