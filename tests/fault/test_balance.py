"""The check after each fault: a process that leaks is reported, and one that does not is not."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.processes import descendants
from tests.support.resources import Balance, Usage, strays, usage

#: Runs each line that it gets, and reports when it is done.
SCRIPT = """
import os, subprocess, sys, threading
hoard = []
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
for each in hoard:
    if isinstance(each, subprocess.Popen): each.kill(), each.wait()
os._exit(0)
"""
LEAKS = {
    "descriptors": "hoard.append(open(os.devnull))",
    "threads": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "processes": "hoard.append(subprocess.Popen(['sleep', '60']))",
    "memory": "hoard.append(b'x' * (8 << 20))",
}


class Leaky:
    """A process that keeps any resource that a test chooses."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.run("pass")

    def run(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def look(self) -> dict[str, Usage | None]:
        pid = self._process.pid
        return {"it": usage(pid, 1 + len(descendants(pid)))}

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def leaky() -> Iterator[Leaky]:
    process = Leaky()
    yield process
    process.close()


@pytest.mark.parametrize("what", LEAKS)
def test_what_a_process_keeps_is_reported(leaky: Leaky, what: str):
    balance = Balance(leaky.look, patience=0.3)
    balance.take_standard(0.1)
    balance.before()
    leaky.run(LEAKS[what])

    balance.after("a fault")

    assert [
        line for line in balance.violations if line.startswith(f"I9: 0.3 s after 'a fault' it had {what} +")
    ]
    assert balance.worst["a fault"].what == what


def test_descriptors_that_do_not_come_back_are_named(leaky: Leaky):
    balance = Balance(leaky.look, patience=0.3)
    balance.take_standard(0.1)
    balance.before()
    leaky.run(LEAKS["descriptors"])

    balance.after("a fault")

    assert any("it has 0 pipe:" in line and " /dev/null" in line for line in balance.violations)


def test_what_comes_back_in_time_is_none(leaky: Leaky):
    balance = Balance(leaky.look, patience=60.0)
    balance.take_standard(0.1)
    balance.before()
    for what in ("descriptors", "memory"):
        leaky.run(LEAKS[what])
    looks = itertools.count(1)

    def look() -> dict[str, Usage | None]:
        if next(looks) == 3:
            leaky.run("hoard.clear()")
        return leaky.look()

    balance.look = look
    balance.after("a fault")

    assert balance.violations == []
    assert next(looks) > 4, "it did not wait"
    assert 0.0 < balance.longest < 60.0


def test_memory_that_is_allowed_is_no_leak(leaky: Leaky):
    balance = Balance(leaky.look, patience=0.3)
    balance.take_standard(0.1)
    balance.before()
    leaky.run(LEAKS["memory"])

    balance.after("a fault", allowance=16 << 20)

    assert balance.violations == []


def test_one_descriptor_does_not_hide_among_many(leaky: Leaky):
    balance = Balance(leaky.look, patience=0.3)
    leaky.run("hoard += [open(os.devnull) for _ in range(100)]")
    balance.take_standard(0.1)
    balance.before()
    leaky.run(LEAKS["descriptors"])

    balance.after("a fault")

    assert balance.violations


def test_a_process_that_does_not_come_back_is_reported(leaky: Leaky):
    balance = Balance(lambda: leaky.look() if balance.longest < 0.1 else {"it": None}, patience=0.3)
    balance.take_standard(0.1)
    balance.longest = 1.0

    balance.after("a fault")

    assert balance.violations


def test_a_process_that_belongs_to_nobody_is_found():
    process = subprocess.Popen(
        ["cat"], env={"MARK": "of this test alone"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"!")
        process.stdin.flush()
        assert process.stdout.read(1) == b"!"  # only now does it surely show its environment
        assert strays("MARK=of this test alone", {process.pid}) == []
        assert strays("MARK=of this test alone", set()) == [process.pid]
    finally:
        process.kill()
        process.communicate()
