"""Kills while a generator gives partial results and a client reads them.

Each stream that the client has read goes into the history, where the checker judges it.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from svc.client.client import BrokerClient
from svc.codec import PLAIN, encode_arguments
from svc.domain.job import NewChunk, Terms
from svc.errors import ServiceError, StreamRestarted
from tests.fault.site import TASKS, submit
from tests.fault.strikes import Strikes
from tests.support.fault_tasks import GIVEN_VALUES
from tests.support.history import Recorder, StreamRead

IN_STREAMS = ("F35 kill -9 a consumer in a stream", "F35 kill -9 the manager in a stream")
#: Seconds that all attempts at such a job may take, on a busy machine.
_PATIENCE_SECONDS = 60.0


def kill_in_stream(strikes: Strikes, kind: str) -> None:
    """Submit a generator, kill a process once a part of what it gives is read, and read it to its end."""
    at, site = time.monotonic(), strikes.site
    recorder = Recorder(site.folder, strikes.name("stream"))
    label = f"{recorder.client}-0"
    body = encode_arguments(PLAIN, (label, 0.0, str(site.folder)), {})
    with site.broker() as broker:
        submit(broker, recorder, NewChunk(0, Terms(f"{TASKS}:give", "poison"), [body]))
    reading = Reading(strikes, label)
    reading.start()
    enough = strikes.random.randrange(1, GIVEN_VALUES // 2)
    if not strikes.until(lambda: len(reading.seen) >= enough, _PATIENCE_SECONDS):
        strikes.violations.append(f"I19: no more than {len(reading.seen)} partial results of {label} came")
    elif kind == IN_STREAMS[0]:
        strikes.kill([reading.seen[-1][1]], kind)
    else:
        strikes.kill_manager(kind)
    reading.join(_PATIENCE_SECONDS)
    if not strikes.streams or strikes.streams[-1].label != label or not strikes.streams[-1].ended:
        strikes.violations.append(f"I19: the stream of {label} was not read to its end: {reading.error}")
    strikes.note(kind, at)


class Reading(threading.Thread):
    """Reads the streams of a job, one after the other, to the end of the last one.

    Attributes:
        seen: the partial results of the stream that is read now.
        error: why it ended early.
    """

    def __init__(self, strikes: Strikes, label: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[list[Any]] = []
        self.error: ServiceError | None = None
        self._strikes = strikes
        self._label = label

    def run(self) -> None:
        try:
            with BrokerClient(self._strikes.site.broker, patience=_PATIENCE_SECONDS) as client:
                while not self._read(client):
                    pass
        except ServiceError as error:
            self.error = error

    def _read(self, client: BrokerClient) -> bool:
        """Read one stream; return whether it is the last one."""
        seen: list[list[Any]] = []
        self.seen = seen
        stream = client.job(self._label).stream()
        ended = False
        try:
            seen.extend(stream)
            ended = True
        except StreamRestarted:
            pass
        finally:
            self._strikes.streams.append(StreamRead(self._label, stream.number, seen, ended))
        return ended
