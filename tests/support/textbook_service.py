"""The textbook service, made of `BaseManager` and `queue.Queue`, to compare it with svc under faults."""

from __future__ import annotations

import queue
import subprocess
import sys
from multiprocessing.managers import BaseManager
from pathlib import Path

from tests.support.ports import lasting_port
from tests.support.processes import ROOT


class TextbookService:
    """Starts and kills the server, like `tests.support.processes.Service` for svc."""

    def __init__(self, folder: Path) -> None:
        self.listen = f"127.0.0.1:{lasting_port()}"
        self.authkey_file = folder / "authkey"
        self.authkey_file.write_text("k" * 40)

    def start_manager(self) -> None:
        port = self.listen.rpartition(":")[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.textbook_service", port, self.authkey_file.read_text()],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill_manager(self) -> None:
        self._process.kill()
        self._process.communicate()

    def close(self) -> None:
        self.kill_manager()


class _Manager(BaseManager):
    pass


def _serve(port: str, key: str) -> None:
    tasks: queue.Queue[object] = queue.Queue()
    _Manager.register("tasks", callable=lambda: tasks)
    server = _Manager(("127.0.0.1", int(port)), authkey=key.encode()).get_server()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
