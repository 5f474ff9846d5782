"""A real manager and a real worker, each in processes of its own, which tests can kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from svc.addresses import parse_manager
from svc.app import Client, connect
from svc.broker.manager import ManagerBroker
from svc.domain.events import AnyEvent
from svc.key_files import read_authkey
from svc.server.journal import SqliteJournal
from tests.support.ports import lasting_port
from tests.support.proxy import Proxy

ROOT = Path(__file__).parents[2]


class Service:
    """`svc manager` and `svc worker` on loopback, in a folder of their own."""

    def __init__(
        self,
        folder: Path,
        tasks: str,
        consumers: int = 4,
        worker_flags: tuple[str, ...] = (),
        host: str = "127.0.0.1",
    ) -> None:
        self.folder = folder
        self.journal = folder / "journal.db"
        self.authkey_file = folder / "authkey"
        self.authkey_file.write_text("k" * 40)
        self.authkey_file.chmod(0o600)
        self.listen = f"{host}:{lasting_port(host)}"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SVC_AUTHKEY_FILE": str(self.authkey_file),
            "SVC_MANAGER": self.listen,
            "SVC_LOG_LEVEL": "info",
        }
        self._worker_flags = ("--tasks", tasks, "--consumers", str(consumers), *worker_flags)
        self.manager: subprocess.Popen[bytes] | None = None
        self.worker: subprocess.Popen[bytes] | None = None

    def start_manager(
        self,
        *flags: str,
        wait: bool = True,
        prefix: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        module: tuple[str, ...] = ("svc",),
    ) -> None:
        """Start the manager on the same address and journal as before; return once it serves.

        The command begins with *prefix*; *environment* is added to that of all; *module* stands in
        for `service`.
        """
        announced = self.folder / "manager.json"
        announced.unlink(missing_ok=True)
        arguments = ("--listen", self.listen, "--http", "off", "--journal", str(self.journal), *flags)
        arguments = ("manager", *arguments, "--announce", str(announced))
        self.manager = self.run(*arguments, prefix=prefix, environment=environment, module=module)
        if wait:
            self._await_file(announced, self.manager)

    def replace_managers(self) -> list[str]:
        """Start managers anew that have ended by themselves and have a successor; say how each had ended."""
        return []

    def start_worker(self) -> None:
        """Start the worker."""
        self.worker = self.run("worker", "--http", "off", *self._worker_flags)

    def run(
        self,
        *arguments: str,
        prefix: tuple[str, ...] = (),
        module: tuple[str, ...] = ("svc",),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start `svc ARGUMENTS` and return its process; its output goes to a log file of the folder.

        *prefix* comes before the command; *module* and its arguments replace `svc`.
        """
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [*prefix, sys.executable, "-m", *module, *arguments],
                env={**self.environment, **(environment or {})},
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def kill_manager(self) -> None:
        """Kill the manager with SIGKILL, and wait for its end."""
        assert self.manager is not None
        self.manager.kill()
        self.manager.wait()

    def stop_manager(self) -> None:
        """Stop the manager with SIGTERM, and wait for its end."""
        assert self.manager is not None
        self.manager.terminate()
        self.manager.wait(60)

    def kill_consumer(self, place: int) -> bool:
        """Kill one consumer process with SIGKILL; return whether there was one."""
        assert self.worker is not None
        consumers = sorted(pid for pid in descendants(self.worker.pid) if _is_consumer(pid))
        if not consumers:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(consumers[place % len(consumers)], signal.SIGKILL)
        return True

    def client(self, timeout: float = 30.0) -> Client:
        """Return a client that tolerates an absence of the manager of up to *timeout* seconds."""
        return Client(self.listen, authkey_file=self.authkey_file, timeout=timeout)

    def broker(self, timeout: float = 30.0) -> ManagerBroker:
        """Return a bare connection."""
        return connect(parse_manager(self.listen), read_authkey(self.authkey_file), timeout)

    def proxy(self) -> Proxy:
        """Return a new proxy before the manager."""
        return Proxy(parse_manager(self.listen).pairs()[0])

    @property
    def serves_at(self) -> str:
        """The address of the manager that serves."""
        return self.listen

    @property
    def standbys(self) -> list[subprocess.Popen[bytes]]:
        """The managers that do not serve, and could."""
        return []

    def own_records(self) -> Iterator[AnyEvent]:
        """Yield all events of the journal, which no manager has open."""
        with contextlib.closing(SqliteJournal.open(self.journal)) as journal:
            for _, event in journal.replay():
                yield event

    def contradictions(self) -> list[str]:
        """Return all that the journal must not contain, in any history; call it after `own_records`."""
        return []

    def log(self, name: str) -> list[dict[str, object]]:
        """Return the log lines of the manager or the worker, as mappings."""
        lines = (self.folder / f"{name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def close(self) -> None:
        """End everything that still runs."""
        self.stop()

    def stop(self) -> None:
        """Stop the processes of svc that still run: first the worker, then the managers."""
        for process in (self.worker, *self.standbys, self.manager):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _await_file(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 120
        while not path.exists():
            assert process.poll() is None, (self.folder / "manager.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextlib.contextmanager
def service(
    folder: Path, tasks: str, consumers: int = 4, worker_flags: tuple[str, ...] = ()
) -> Iterator[Service]:
    """Run a manager and a worker while the block runs."""
    running = Service(folder, tasks, consumers, worker_flags)
    try:
        running.start_manager()
        running.start_worker()
        yield running
    finally:
        running.close()


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """Return the processes below *pid*."""
    families = _families()
    found, pending = [], [pid]
    while pending:
        next_ones = families.get(pending.pop(), [])
        found += next_ones
        pending += next_ones
    return found


def children(pid: int) -> list[int]:
    """Return the children of process *pid*."""
    return _families().get(pid, [])


def _families() -> dict[int, list[int]]:
    """Return the children of each process that has children."""
    found: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            found.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    return found


def _is_consumer(pid: int) -> bool:
    """Return whether a process has a connection of its own: a forkserver or resource tracker has none."""
    with contextlib.suppress(OSError):
        return any(
            str(link.readlink()).startswith("socket:")
            for link in Path(f"/proc/{pid}/fd").iterdir()
            if int(link.name) > 2
        ) and not descendants(pid)
    return False
