"""`svc worker` whose consumers die at a named point of their protocol, once a file says so.

`python -m tests.support.fail_points FOLDER worker …`. The connection of consumers is replaced by one that is
real but looks at the messages. The first consumer that comes to the point takes the file away, records the
processes that the fault affects, and kills itself.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from svc.addresses import ManagerAddresses
from svc.app import worker
from svc.app.worker import DIAL_SECONDS
from svc.broker.manager import ManagerBroker
from svc.cli import main as svc
from svc.domain import commands as c
from svc.domain import replies as r
from svc.wire_tls import TlsFiles
from tests.support.history import DYING_SECONDS, Log

PLACES = ("between lease and run", "between run and report", "after report")
_LEASED, _RAN, _REPORTED = PLACES


def order(folder: Path, place: str, kind: str) -> Path:
    """Let the next consumer at *place* die of a fault of *kind*; return the file that it takes away."""
    path = _file(folder, place)
    path.parent.mkdir(exist_ok=True)
    # Written whole: otherwise a consumer might find the file without its content.
    draft = path.with_suffix(".draft")
    draft.write_text(kind)
    draft.rename(path)
    return path


class DeadlyBroker(ManagerBroker):
    """A connection at which its process may die."""

    def __init__(
        self, folder: Path, address: ManagerAddresses, authkey: bytes, hello: Callable[[], c.Hello]
    ) -> None:
        super().__init__(address.pairs(), authkey, hello=hello, timeout=DIAL_SECONDS)
        self._folder = folder

    def call(self, commands: Sequence[c.AnyCommand], *, wait: float = 0.0) -> list[r.AnyReply]:
        """Make the call, and die before it, after it, or with its reply, if a file says so."""
        reports = any(isinstance(command, c.Ack | c.Nack) for command in commands)
        if reports:
            self._pass(_RAN)
        replies = super().call(commands, wait=wait)
        if reports:
            self._pass(_REPORTED)
        if any(isinstance(reply, r.Grant) and reply.deliveries for reply in replies):
            self._pass(_LEASED)
        return replies

    def _pass(self, place: str) -> None:
        path = _file(self._folder, place)
        taken = path.with_suffix(f".{os.getpid()}")
        try:
            path.rename(taken)
        except FileNotFoundError:
            return
        now = time.monotonic()
        # Its other threads go on until the signal has arrived.
        until = now + DYING_SECONDS
        about = {"kind": taken.read_text(), "at": now, "until": until, "pids": [os.getpid()], "fatal": True}
        Log(self._folder / "faults" / f"{os.getpid()}.jsonl").write(**about)
        taken.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def dial(
    folder: Path,
    address: ManagerAddresses,
    authkey: bytes,
    tls: TlsFiles | None,
    hello: Callable[[], c.Hello],
) -> ManagerBroker:
    """Connect a consumer so that it can die; a supervisor connects as usual."""
    assert tls is None
    if multiprocessing.parent_process() is None:
        return ManagerBroker(address.pairs(), authkey, hello=hello, timeout=DIAL_SECONDS)
    return DeadlyBroker(folder, address, authkey, hello)


def _file(folder: Path, place: str) -> Path:
    return folder / "fail_at" / place.replace(" ", "_")


if __name__ == "__main__":
    # With its importable name: consumers get it pickled, and have another main module.
    from tests.support import fail_points

    worker._dial = functools.partial(fail_points.dial, Path(sys.argv.pop(1)))
    svc()
