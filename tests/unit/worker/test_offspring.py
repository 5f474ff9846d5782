"""The search for the processes that a task has left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from svc.worker.offspring import Process, descendants, end_descendants, groups_below
from tests.support.processes import alive
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


def found(pid: int) -> dict[Process, int]:
    return {each: group for each, group in groups_below(os.getpid()).items() if each.pid == pid}


def test_a_process_group_ends_with_the_process_that_is_found(monkeypatch: pytest.MonkeyPatch):
    script = "sleep 60 & echo $!; wait"
    with subprocess.Popen(
        ["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        member = int(leader.stdout.readline())
        looks: list[dict[Process, int]] = [found(leader.pid), {}, {}]
        monkeypatch.setattr("svc.worker.offspring.groups_below", lambda *_: looks.pop(0))
        end_descendants(os.getpid())
        until(lambda: not alive(member))


def test_one_look_that_finds_nothing_is_not_believed(monkeypatch: pytest.MonkeyPatch):
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    first, second = (found(child.pid) for child in children)
    looks: list[dict[Process, int]] = [first, {}, second, {}, {}]
    monkeypatch.setattr("svc.worker.offspring.groups_below", lambda *_: looks.pop(0))
    end_descendants(os.getpid())
    assert looks == []
    for child in children:
        assert child.wait(30) is not None


#: Tells the answer of each way to ask: without a child, with one that runs, with one that has ended, without.
CHILDREN = """
import os, signal
from svc.worker.offspring import children_check, has_children
ways = has_children, children_check()
def tell(): print(*(way() for way in ways), flush=True)
tell()
child = os.fork()
if not child:
    signal.pause()
tell()
os.kill(child, signal.SIGKILL)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
tell()
os.waitpid(child, 0)
tell()
"""


def test_the_quick_way_finds_a_child_that_runs_or_has_ended_as_the_other_one_does():
    done = subprocess.run([sys.executable, "-c", CHILDREN], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == ["False"] * 2 + ["True"] * 4 + ["False"] * 2
