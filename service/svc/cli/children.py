"""A manager and a worker as child processes, for `svc dev` and `svc demo`; they end with their parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from svc.addresses import parse_manager
from svc.cli.auth import write_authkey
from svc.cli.output import tell
from svc.errors import Conflict, ServiceError
from svc.settings import ConnectionSettings

#: Seconds that a child may take until it serves.
START_SECONDS = 30.0
#: Seconds that running jobs may go on when their worker is stopped.
GRACE_SECONDS = 3.0
#: Seconds that a child may take to end before it is killed.
STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.02


class ChildFailed(ServiceError):
    """A process that this command started has ended too early."""

    code = "child_failed"


class ChildProcess:
    """`svc VERB …` as a process in a session of its own, so that Ctrl-C reaches only its parent.

    Attributes:
        addresses: its addresses by name (`listen`, `http`), once it serves.
    """

    def __init__(self, verb: str, arguments: Sequence[str], folder: Path, *, quiet: bool) -> None:
        """Start it; if *quiet*, its log goes to a file in *folder*."""
        self.verb = verb
        self.addresses: dict[str, str] = {}
        self._announced = folder / f"{verb}.json"
        self._announced.unlink(missing_ok=True)  # of an earlier child
        self._log = folder / f"{verb}.log" if quiet else None
        # Settings of the folder and of the environment are for processes of their own.
        # Without -B, which its children inherit, a cached source could hide a change just after another one:
        # Python tells sources by second and size.
        program = [sys.executable, "-P", "-B", "-m", "svc", "--config", os.devnull]
        command = [*program, verb, *arguments, "--announce", str(self._announced)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SVC_")}
        with ExitStack() as stack:
            log = stack.enter_context(self._log.open("wb")) if self._log else None
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    def wait_serving(self) -> None:
        """Wait until the child serves, and take its addresses.

        Raises:
            ChildFailed: it has ended, or did not serve in time.
        """
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._announced.exists():
                self.addresses = json.loads(self._announced.read_text())
                return
            if self.process.poll() is not None:
                raise ChildFailed(
                    f"the {self.verb} ended with exit code {self.process.returncode}{self._said()}"
                )
            time.sleep(_LOOK_SECONDS)
        raise ChildFailed(f"the {self.verb} did not serve within {START_SECONDS:g} s{self._said()}")

    def wait_ended(self, seconds: float) -> int:
        """Return the exit code, once it has ended by itself.

        Raises:
            ChildFailed: it did not end in time.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"the {self.verb} did not end within {seconds:g} s{self._said()}") from None

    def stop(self) -> None:
        """Ask it to end, wait, and kill it if it does not. May be called twice."""
        self.process.terminate()
        # A second Ctrl-C is no reason to leave it behind: it ends the patience, not the cleaning up.
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            self.process.wait(STOP_SECONDS)
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _said(self) -> str:
        if self._log is None:
            return ""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


@dataclass(frozen=True, slots=True)
class Service:
    """A manager and a worker on this host.

    Attributes:
        connection: the settings of a client of the manager.
        pickle_key_file: the generated key for pickles, which the manager does not get.
        manager: the manager's process.
        worker: the worker's process.
        start_worker: starts another such worker after the end of the first, and returns it once it serves.
    """

    connection: ConnectionSettings
    pickle_key_file: Path
    manager: ChildProcess
    worker: ChildProcess
    start_worker: Callable[[], ChildProcess]


@contextmanager
def running_service(
    manager_flags: Callable[[], Sequence[str]],
    worker_flags: Sequence[str],
    *,
    quiet: bool,
    journal: Path | None = None,
) -> Iterator[Service]:
    """Start a manager and a worker; afterwards end both and delete their files.

    The manager's flags have its addresses; they are asked for again if another program takes one of these
    before the manager does. The worker gets the address from here. A *journal* that is named is kept.

    Raises:
        ChildFailed: one of the two did not serve.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="svc-")))
        key, pickle_key = folder / "authkey", folder / "pickle_key"
        write_authkey(key)
        write_authkey(pickle_key)
        secret = ("--authkey-file", str(key))
        kept = ("--journal", str(journal or folder / "journal.sqlite"))

        def start_manager(flags: Sequence[str]) -> ChildProcess:
            manager = ChildProcess("manager", (*secret, *kept, *flags), folder, quiet=quiet)
            stack.callback(manager.stop)
            return manager

        manager = _serving(start_manager, manager_flags)
        listen = manager.addresses["listen"]
        own = ("--manager", listen, "--grace", str(GRACE_SECONDS), "--pickle-key-file", str(pickle_key))

        def start_worker() -> ChildProcess:
            worker = ChildProcess("worker", (*secret, *own, *worker_flags), folder, quiet=quiet)
            stack.callback(worker.stop)
            worker.wait_serving()
            return worker

        connection = ConnectionSettings(manager=parse_manager(listen), authkey_file=key)
        yield Service(connection, pickle_key, manager, start_worker(), start_worker)


def _serving(
    start: Callable[[Sequence[str]], ChildProcess], flags: Callable[[], Sequence[str]]
) -> ChildProcess:
    """Start a child until it serves: again with other *flags* if a port was taken after it was chosen."""
    chosen = flags()
    while True:
        child = start(chosen)
        try:
            child.wait_serving()
        except ChildFailed:
            tried, chosen = chosen, flags() if child.process.poll() == Conflict.exit_code else chosen
            if chosen == tried:
                raise
            tell(f"svc: the {child.verb} starts again, at addresses that are free")
        else:
            return child


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this process like Ctrl-C: through every `finally`."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, _interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
