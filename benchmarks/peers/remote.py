"""Controls a peer: a client in the peer's environment, with requests on stdin and answers on stdout."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Self

from benchmarks.peers.environments import ROOT
from benchmarks.peers.redis_server import RedisServer

_PATIENCE_SECONDS = 300.0
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class Remote:
    """One peer with its workers, which run within a `with` block."""

    def __init__(
        self,
        module: str,
        python: Path,
        log: Path,
        redis: RedisServer | None = None,
        settings: Mapping[str, str] = _NO_SETTINGS,
    ) -> None:
        """Prepare to run the adapter *module* with *python*; its and its workers' output goes to *log*.

        *settings* are variables of its environment, as the adapters read them.
        """
        self._command = [str(python), "-m", "benchmarks.peers.client", module]
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SVC_", "PYTHON"))},
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PEERS_REDIS": redis.url if redis else "",
            "PEERS_REDIS_PID": str(redis.pid) if redis else "",
            **settings,
        }
        self._log = log

    def __enter__(self) -> Self:
        """Start it and wait until its workers have run their first jobs.

        Raises:
            RuntimeError: it ended or did not answer; see its log.
        """
        with self._log.open("w") as log:
            self._child = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        try:
            self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Let it stop its workers and end; kill it if it does not."""
        _pipe(self._child.stdin).close()
        try:
            self._child.wait(40)
        except subprocess.TimeoutExpired:
            print(f"{self._command[-1]} does not end and is killed", file=sys.stderr)
            # It has its own session, so its process group has no other processes.
            os.killpg(self._child.pid, 9)
            self._child.wait()
        _pipe(self._child.stdout).close()

    def measure(self, seconds: float, trips: int, naps: int) -> dict[str, float]:
        """Return the figures of `benchmarks.peers.timing.measure` there, with about *seconds* of no-op jobs.

        Raises:
            RuntimeError: it ended or did not answer; see its log.
        """
        figures: dict[str, float] = self.ask({"seconds": seconds, "trips": trips, "naps": naps})
        return figures

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Return the client's answer to another request: see `benchmarks.peers.client`.

        Raises:
            RuntimeError: it ended or did not answer; see its log.
        """
        stdin = _pipe(self._child.stdin)
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        return json.loads(self._answer())

    def producer(self) -> tuple[list[str], dict[str, str]]:
        """Return the command of another client of the same peer, and its environment."""
        python, *_, module = self._command
        return [python, "-m", "benchmarks.peers.producer", module], self._environment

    def _answer(self) -> str:
        stdout = _pipe(self._child.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            line = stdout.readline() if selector.select(_PATIENCE_SECONDS) else ""
        if not line:
            raise RuntimeError(f"no answer: see {self._log}")
        return line


def _pipe(stream: IO[Any] | None) -> IO[Any]:
    if stream is None:
        raise RuntimeError("the child was started without pipes")
    return stream
