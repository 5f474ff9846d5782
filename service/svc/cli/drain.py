"""`svc drain` and `svc resume`: let every consumer finish and end, and let consumers work again."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from svc.cli.options import Json, named, seconds
from svc.cli.output import tell, write, write_json
from svc.cli.wiring import open_client
from svc.declarations import CENTURY
from svc.errors import ResultTimeout
from svc.settings import ConnectionSettings

if TYPE_CHECKING:
    from svc.client.client import BrokerClient

#: Seconds between two checks of the progress of a drain.
LOOK_SECONDS = 0.1
#: Seconds between two lines of progress if stderr is not a terminal.
LINE_SECONDS = 10.0
#: Seconds that one call to the manager may take.
CALL_SECONDS = 10.0

Worker = Annotated[str, typer.Option("--worker", callback=named, metavar="NAME", help="Only this worker.")]


def drain(
    ctx: typer.Context,
    settings: ConnectionSettings,
    worker: Worker = "",
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            parser=seconds("0", CENTURY),
            metavar="SECONDS",
            help="Time to wait for the consumers to go; without it, for ever.",
        ),
    ] = None,
    refuse: Annotated[bool, typer.Option("--refuse", help="Take no new jobs either, meanwhile.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Start the drain and return.")] = False,
    json: Json = False,
) -> None:
    """Let every consumer finish, and end.

    Each consumer finishes its job and gets one pill, the order to stop. A worker whose last consumer has gone
    exits with 0. Waiting jobs stay. Workers that start meanwhile are sent home in the same way, until
    `svc resume`. Exit code 124 if the time ran out first; then, and after Ctrl-C, the drain stays in force.
    """
    started = time.monotonic()
    with open_client(ctx, settings, min(CALL_SECONDS, timeout or CALL_SECONDS)) as client:
        client.drain(worker=worker, refuse=refuse)
        try:
            left = _remaining(client, worker) if no_wait else _watch(client, worker, started, timeout)
        except KeyboardInterrupt:
            tell(f"svc: not waited for any longer; {_stays(worker)}")
            raise
    seconds = time.monotonic() - started
    if json:
        write_json({"drained": not any(left), **left._asdict(), "seconds": seconds})
    else:
        write(f"draining: {left}" if any(left) else f"drained in {seconds:.1f} s")
    if any(left) and not no_wait:
        raise ResultTimeout(f"{left} after {timeout:g} s; {_stays(worker)}")


def resume(
    ctx: typer.Context,
    settings: ConnectionSettings,
    worker: Worker = "",
    json: Json = False,
) -> None:
    """End a drain: consumers get jobs again.

    Harmless if there is none.
    """
    with open_client(ctx, settings, CALL_SECONDS) as client:
        before = client.stats()
        client.resume(worker=worker)
    drained = worker in before.drained_workers if worker else bool(before.drain)
    if json:
        write_json({"resumed": drained})
    else:
        write("resumed" if drained else "nothing was draining")


def _stays(worker: str) -> str:
    """Say how a drain ends."""
    end = f"svc resume --worker {shlex.quote(worker)}" if worker else "svc resume"
    return f"the drain stays in force until `{end}`"


class Remaining(NamedTuple):
    """The consumers and jobs that a drain still waits for."""

    consumers: int
    leased: int

    def __str__(self) -> str:
        """Return the numbers for people."""
        return f"{self.consumers} consumers and {self.leased} running jobs are left"


def _remaining(client: BrokerClient, worker: str) -> Remaining:
    if worker:
        found = [view for view in client.workers() if view.name == worker]
        return Remaining(sum(view.consumers for view in found), sum(view.leased for view in found))
    totals = client.stats()
    return Remaining(totals.consumers, sum(queue.leased for queue in totals.queues))


def _watch(client: BrokerClient, worker: str, started: float, timeout: float | None) -> Remaining:
    """Wait until nothing is left or *timeout* seconds have passed since *started*; show the progress."""
    progress = DrainProgress()
    while True:
        left = _remaining(client, worker)
        if not any(left) or (timeout is not None and time.monotonic() - started >= timeout):
            progress.end()
            return left
        progress.show(str(left))
        time.sleep(LOOK_SECONDS)


class DrainProgress:
    """A progress line: on a terminal it is kept up to date; elsewhere it is printed every ten seconds."""

    def __init__(self) -> None:
        """Check whether stderr is a terminal."""
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + LINE_SECONDS

    def show(self, text: str) -> None:
        """Show the current progress."""
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        elif time.monotonic() >= self._next:
            self._next += LINE_SECONDS
            tell(text)

    def end(self) -> None:
        """Clear the line."""
        if self._terminal:
            self.show("")
