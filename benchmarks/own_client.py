"""A client of svc for `benchmarks.peers.producer`, which names this module as it names a peer's adapter."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.systems import task_name
from svc import Client


class System:
    """A client of the manager that the environment names."""

    def __init__(self) -> None:
        """Connect."""
        keyfile = Path(os.environ["PRODUCER_KEYFILE"])
        self._client = Client(os.environ["PRODUCER_MANAGER"], authkey_file=keyfile)

    def one(self, function: Callable[[Any], Any], argument: object) -> object:
        """Submit one job and wait for its result."""
        return self._client.submit(task_name(function), argument).result()
