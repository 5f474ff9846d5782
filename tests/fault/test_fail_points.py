"""A consumer that kills itself at a named point, and its record of that."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.fail_points import order

#: A process with a thread that writes down the time as long as it lives, as one that runs jobs side by side.
_SOURCE = """
import os, sys, threading, time
from pathlib import Path
from svc.addresses import parse_manager
from tests.support.fail_points import DeadlyBroker

folder = Path(sys.argv[1])
begun = threading.Event()

def work():
    with (folder / "times").open("w", buffering=1) as times:
        while True:
            print(time.monotonic(), file=times)
            begun.set()

def kill(pid, number, send=os.kill):
    begun.clear()
    begun.wait()  # the thread has gone on
    send(pid, number)

threading.Thread(target=work, daemon=True).start()
begun.wait()
os.kill = kill
broker = DeadlyBroker(folder, parse_manager("127.0.0.1:1"), b"key", hello=lambda: None)
broker._pass("between run and report")
"""


def test_the_record_of_a_kill_covers_all_that_its_process_did(tmp_path: Path) -> None:
    """Else a job that began beside it, and runs again, is unexplained."""
    (tmp_path / "faults").mkdir()
    order(tmp_path, "between run and report", "kill")
    ended = subprocess.run([sys.executable, "-c", _SOURCE, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (record,) = (tmp_path / "faults").glob("*.jsonl")
    last = (tmp_path / "times").read_text().splitlines()[-1]
    assert json.loads(record.read_text())["until"] >= float(last)
