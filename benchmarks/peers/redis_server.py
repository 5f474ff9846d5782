"""A Redis server of the benchmark's own: on loopback, on a free port, with nothing written to disk."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from tempfile import TemporaryDirectory
from typing import Self

_START_SECONDS = 20.0
_MISSING = (
    "no `redis-server` on the path: install it (Debian, Ubuntu: apt-get install --no-install-recommends "
    "redis-server), or choose peers that need none: --only dask ray"
)


class RedisServer:
    """Debian's `redis-server`, which runs within a `with` block."""

    def __enter__(self) -> Self:
        """Start it and wait for its first answer.

        Raises:
            FileNotFoundError: it is not installed, and this user may not install it.
            TimeoutError: it did not answer in time.
        """
        self._folder = TemporaryDirectory(prefix="svc-peers-redis-")
        self._port = _free_port()
        self.url = f"redis://127.0.0.1:{self._port}"
        command = [_executable(), "--bind", "127.0.0.1", "--port", str(self._port)]
        command += ["--dir", self._folder.name]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"]
        self._child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._wait_until_it_answers()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop it and remove its folder."""
        self._child.terminate()
        self._child.wait()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._child.pid

    def clear(self) -> None:
        """Delete all data, so that a peer starts with an empty server."""
        self._ask(b"FLUSHALL\r\n")

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                return self._ask(b"PING\r\n")
            except OSError:
                if time.monotonic() > end or self._child.poll() is not None:
                    self.__exit__()
                    raise TimeoutError("redis-server did not start; run it by hand to see why") from None
                time.sleep(0.05)

    def _ask(self, command: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
            connection.sendall(command)
            connection.recv(64)


def _executable() -> str:
    found = shutil.which("redis-server")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=60"]
        # On hosts with an init system, Debian's package starts a server itself; ours is another one.
        subprocess.run([*quiet, "update"], check=True)
        install = [*quiet, "install", "-y", "--no-install-recommends", "redis-server"]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        found = shutil.which("redis-server")
    if found is None:
        raise FileNotFoundError(_MISSING)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
