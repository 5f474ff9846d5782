"""The wait until a forkserver has imported the user's modules of `--preload`.

That may take minutes, or for ever. So a thread waits for it, and meanwhile the supervisor goes on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Final

from svc.worker.process import (
    describe_exit,
    forkserver_pid,
    has_ended,
    main_hidden,
    retire_forkserver,
    signals_held_back,
    start_forkserver,
)

#: The environment variable with the modules and the search path, in JSON; no process of a task sees it.
VARIABLE: Final = "_SVC_PRELOAD"
_LOADER: Final = "svc.worker.preload"


def modules_to_fork_from(own: Sequence[str], user: Sequence[str]) -> tuple[str, ...]:
    """Return the modules to name to a forkserver that shall import svc's *own* and then the *user*'s.

    All forkservers that this process starts from now on import the latter.
    """
    if not user:
        return tuple(own)
    os.environ[VARIABLE] = json.dumps([sys.path, list(user)])
    return (*(name for name in own if name != _LOADER), _LOADER)


class Preloading:
    """The modules that a worker's forkservers import before they fork consumers.

    Args:
        context: makes processes.
        own: svc's modules that a forkserver imports.
        modules: the user's.
        timeout: seconds that the imports may take.
        ended: called once a forkserver is ready or has failed, from a thread.

    Attributes:
        threads: the threads that the modules have started in the forkserver, in words; "" for none.
    """

    def __init__(
        self,
        context: ForkServerContext,
        own: Sequence[str],
        modules: Sequence[str],
        timeout: float,
        ended: Callable[[], None],
    ) -> None:
        self.threads = ""
        self._context = context
        self._own = own
        self._modules = ", ".join(modules)
        self._timeout = timeout
        self._ended = ended
        self._thread: threading.Thread | None = None
        self._error = ""
        self._ready = 0
        self._done = False
        self._late = False
        self.deadline = 0.0

    @property
    def waits(self) -> bool:
        """Whether a forkserver imports the modules now."""
        return self._thread is not None

    def is_ready(self, now: float) -> bool:
        """Return whether consumers can be forked; begin the imports if there is no forkserver, or a new one.

        Raises:
            RuntimeError: the imports have failed; the next call tries again.
        """
        if self._thread is None:
            if self._ready and not has_ended(self._ready, 0.0):
                return True
            self._begin(now)
        elif self._done:
            if self._error:
                self.abandon()
            self._thread = None
            if self._error:
                raise RuntimeError(self._error)
            return True
        elif now >= self.deadline:
            self._late = True
            self.abandon()
        return False

    def renew(self) -> None:
        """Let the next consumer be forked by a new forkserver, unless one imports the modules just now."""
        if self._thread is None:
            retire_forkserver()
            self._ready = 0

    def abandon(self) -> None:
        """End the forkserver, unless it has imported the modules."""
        if self._thread is not None:
            with suppress(ProcessLookupError):
                os.kill(forkserver_pid(), signal.SIGKILL)

    def _begin(self, now: float) -> None:
        self.deadline = now + self._timeout
        self._done, self._late, self._error, self._ready = False, False, "", 0
        start_forkserver(self._own)
        self._thread = threading.Thread(target=self._wait, name="preloading", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        """Have the forkserver fork a process that reports, which it does after the imports."""
        server = forkserver_pid()
        try:
            self._error, self.threads = self._report()
            self._ready = server
        except (OSError, EOFError):
            how = f"took longer than {self._timeout:g} s" if self._late else f"ended: {_end_of(server)}"
            self._error = f"the process that imports the modules of --preload ({self._modules}) {how}"
        self._done = True
        self._ended()

    def _report(self) -> tuple[str, str]:
        ours, theirs = self._context.Pipe(duplex=False)
        with ours:
            with theirs, signals_held_back(), main_hidden():
                process = self._context.Process(target=_tell, args=(theirs,))
                process.start()
            error, threads = ours.recv()
            process.join()
            process.close()
        return error, threads


def _tell(pipe: Connection) -> None:
    """Send the report of this process's forkserver."""
    from svc.worker.preload import REPORT

    pipe.send(tuple(REPORT))


def _end_of(forkserver: int) -> str:
    try:
        told = os.waitid(os.P_PID, forkserver, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return "it is not known how"
    if told is None:
        return "it is not known how"
    return describe_exit(told.si_status if told.si_code == os.CLD_EXITED else -told.si_status)
