"""Connections of strangers, and the reasons that a manager logs for refusing them."""

from __future__ import annotations

import socket
from contextlib import contextmanager

from structlog.testing import capture_logs

from tests.support.stranger import Stranger


def connected(running, source: str = "127.0.0.1") -> Stranger:
    sock = socket.create_connection(running.endpoint, timeout=20, source_address=(source, 0))
    return Stranger(running.endpoint, sock)


def serves(running) -> bool:
    with running.broker() as broker:
        return bool(broker.connect().version)


@contextmanager
def noted():
    with capture_logs() as logs:
        yield lambda event: [log["reason"] for log in logs if log["event"] == event]
