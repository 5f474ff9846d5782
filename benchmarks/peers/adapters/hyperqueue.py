"""HyperQueue: a server with one worker of four cores, in a process of their own; each call is a new Python.

With `PEERS_HYPERQUEUE=inside` server and worker run in the client's process, as a program with a
`LocalCluster` has them.

A task of HyperQueue has an exit code and files, and no value. So each call leaves its result in a file, and
the client looks for it every millisecond: HyperQueue's own wait in Python asks once a second.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from hyperqueue import Client, Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from hyperqueue.task.function import PythonEnv

from benchmarks import tasks
from benchmarks.peers.adapters.workers import PATIENCE, PROCESSES, later, parts

_LOOK_SECONDS = 0.001
_SERVER = "server "


class System:
    """A `LocalCluster`, without a journal, and a client of it."""

    def __enter__(self) -> Self:
        """Start the cluster, and connect to it."""
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="hyperqueue-")))
        self._submits = 0
        python = PythonEnv(sys.executable)
        if os.environ.get("PEERS_HYPERQUEUE") == "inside":
            cluster = self._stack.enter_context(_cluster(self._folder / "server", PROCESSES))
            self._client = cluster.client(python_env=python)
            return self
        command = [sys.executable, "-m", "benchmarks.peers.adapters.hyperqueue", str(PROCESSES)]
        apart = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.callback(apart.communicate, timeout=20)
        assert apart.stdout is not None
        said = next(line for line in apart.stdout if line.startswith(_SERVER))
        self._client = Client(said.removeprefix(_SERVER).strip(), python_env=python)
        return self

    def __exit__(self, *exception: object) -> None:
        """End the cluster, and remove all files."""
        self._stack.close()

    def pids(self) -> dict[str, list[int]]:
        """Return the process of server and worker, with the calls that run now."""
        return parts()

    def all(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterable[Any]:
        """Submit one job with a task for each call, and one that depends on all and marks the end."""
        folder = self._new_folder()
        files = [(folder / str(number), argument) for number, argument in enumerate(arguments)]
        job = Job(default_workdir=folder)
        calls = [_call(job, file, function, argument) for file, argument in files]
        self._submit(job, calls)
        return later(lambda: self._values(folder, [file for file, _ in files]))

    def one(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Run one call."""
        folder = self._new_folder()
        job = Job(default_workdir=folder)
        _call(job, folder / "value", function, argument)
        self._client.submit(job)
        _wait(folder / "value")
        return pickle.loads((folder / "value").read_bytes())

    def programs(self, count: int) -> float:
        """Return how many times a second it runs `true`, as one job of *count* tasks."""
        folder = self._new_folder()
        started = time.perf_counter()
        job = Job(default_workdir=folder)
        self._submit(job, [job.program(["true"]) for _ in range(count)])
        _wait(folder / "end")
        return count / (time.perf_counter() - started)

    def _submit(self, job: Job, calls: list[Any]) -> None:
        job.program(["touch", "end"], deps=calls)
        self._client.submit(job)

    def _values(self, folder: Path, files: list[Path]) -> Iterable[Any]:
        _wait(folder / "end")
        return (pickle.loads(file.read_bytes()) for file in files)

    def _new_folder(self) -> Path:
        self._submits += 1
        folder = self._folder / str(self._submits)
        folder.mkdir()
        return folder


def _call(job: Job, file: Path, function: Callable[[Any], Any], argument: Any) -> Any:
    """Add a call to *job*; without files for its output, as nothing writes any."""
    return job.function(tasks.keep, args=(str(file), function, argument), stdout=None, stderr=None)


def _wait(file: Path) -> None:
    """Wait for *file*.

    Raises:
        TimeoutError: it does not come, as if a task has failed.
    """
    end = time.monotonic() + PATIENCE
    while not file.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{file} is missing after {PATIENCE:g} s")
        time.sleep(_LOOK_SECONDS)


def _cluster(folder: Path, cores: int) -> LocalCluster:
    """Start server and worker in this process; clients find them by *folder*."""
    cluster = LocalCluster(str(folder))  # it says Path, but takes a str alone
    cluster.start_worker(WorkerConfig(cores=cores))
    return cluster


def run_cluster(cores: int) -> None:
    """Run server and worker until stdin ends; print the folder by which clients find them."""
    with TemporaryDirectory(prefix="hyperqueue-") as folder:
        os.chdir(folder)
        with _cluster(Path(folder), cores) as cluster:
            print(f"{_SERVER}{cluster.cluster.server_dir}", flush=True)
            sys.stdin.read()
        os.chdir("/")


if __name__ == "__main__":
    run_cluster(int(sys.argv[1]))
