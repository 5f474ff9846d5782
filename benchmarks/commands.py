"""Shell commands as jobs: `true` many times, by `svc run --each-line`, beside HyperQueue.

HyperQueue is measured in two ways. A Python program with a `LocalCluster` has its server and worker *inside*
its own process; *apart* they are in a process of their own, as those of a cluster are.
"""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.peers.environments import FOLDER, interpreter
from benchmarks.peers.remote import Remote
from benchmarks.peers.table import PEERS
from benchmarks.systems import PROCESSES, Service, environment

_SETTINGS = {"PEERS_WARM_UP": "1"}
#: The ways in which HyperQueue runs, and their names.
WAYS = {"apart": "in its own process", "inside": "in the client's process (LocalCluster)"}


def service_rate(durability: str, count: int) -> float:
    """Return the commands a second from the start to the end of `svc run`, for *count* lines."""
    with Service(durability, consumers=0) as service:
        service.start_worker(PROCESSES, "--shell")
        service.wait_for_consumers(PROCESSES)
        _run(service, 1)
        started = time.perf_counter()
        _run(service, count)
        return count / (time.perf_counter() - started)


def _run(service: Service, count: int) -> None:
    lines = service.folder / "lines"
    lines.write_text("x\n" * count)
    flags = ["--manager", service.address, "--authkey-file", str(service.keyfile), "--wait"]
    command = [sys.executable, "-m", "svc", "run", *flags, "--each-line", str(lines), "--", "true"]
    subprocess.run(command, env=environment(), check=True)


def hyperqueue_rate(count: int, way: str) -> float:
    """Return the same of HyperQueue from a Python program: one job with *count* tasks, until all have ended.

    It runs in one of the `WAYS`. Its start is not measured, and it is not durable: it has no journal.

    Raises:
        subprocess.CalledProcessError: it could not be installed.
        RuntimeError: a command failed.
    """
    (peer,) = (each for each in PEERS if each.programs)
    settings = {**_SETTINGS, "PEERS_HYPERQUEUE": way}
    log = FOLDER / f"{peer.name}-{way}.log"
    with Remote(peer.module, interpreter(peer.lock), log, settings=settings) as remote:
        rate: float = remote.ask({"programs": count})["rate"]
    return rate
