"""The ways in which a task leaves a process behind; each returns the number of the process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def sleep() -> None:
    time.sleep(600)


def _child() -> int:
    return subprocess.Popen(SLEEP).pid


def _session() -> int:
    return subprocess.Popen(SLEEP, start_new_session=True).pid


def _daemon() -> int:
    """Start a process as daemons do: in a session of its own, with a parent that has ended."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sleep()
        os.write(writing, str(pid).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reading, 20))


def _multiprocessing() -> int:
    process = multiprocessing.get_context("fork").Process(target=sleep)
    process.start()
    return process.pid or 0


def _grandchild() -> int:
    program = f"import subprocess, time; print(subprocess.Popen({SLEEP!r}).pid, flush=True); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    return int(parent.stdout.readline())


WAYS = {
    "child": _child,
    "session": _session,
    "daemon": _daemon,
    "multiprocessing": _multiprocessing,
    "grandchild": _grandchild,
}
