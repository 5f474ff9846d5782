"""The search for the processes that a task has left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from svc.worker.offspring import descendants, end_descendants
from tests.support.workers import until

#: Starts a child, says its number, and ends its first thread while another one lives on.
HALF_ENDED = """
import ctypes, subprocess, sys, threading, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
threading.Thread(target=time.sleep, args=(60,)).start()
print(child.pid, flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def looks_ended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"


def test_the_child_of_a_process_whose_first_thread_has_ended_is_found_and_ended():
    with subprocess.Popen([sys.executable, "-c", HALF_ENDED], stdout=subprocess.PIPE, text=True) as half:
        assert half.stdout is not None
        try:
            child = int(half.stdout.readline())
            until(lambda: looks_ended(half.pid))
            assert child in {process.pid for process in descendants(os.getpid())}

            end_descendants(half.pid)
            assert child not in {process.pid for process in descendants(os.getpid())}
        finally:
            half.kill()
