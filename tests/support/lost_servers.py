"""A replicated service from which a test takes one NATS server at a time, and the pause that this costs.

The roles of the servers are put where the test wants them: who leads the stream, who leads the bucket of the
leader's key, and which servers the leading manager is connected to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import nats
import nats.errors

from svc.client.submitter import Job
from svc.server.journal.jetstream.stream_form import BUCKET_SUFFIX
from tests.support.replicated_service import JOURNAL, ReplicatedService
from tests.support.workers import until

#: The stream of the bucket of the leader's key.
BUCKET: Final = f"KV_{JOURNAL}{BUCKET_SUFFIX}"
#: A line of a server's log, with its local time.
_ELECTED: Final = re.compile(rf"(\S+ \S+) \[INF\] JetStream cluster new stream leader for '\$G > {JOURNAL}'")
_LOG_TIME: Final = "%Y/%m/%d %H:%M:%S.%f"
#: Seconds from one submit to the next.
_PACE_SECONDS: Final = 0.01
#: Seconds of load before a server is lost, and after the service has gone on.
_BEFORE_SECONDS, _AFTER_SECONDS = 1.0, 1.0
_PATIENCE_SECONDS: Final = 60.0


@dataclass
class Pause:
    """The effect of a lost server on a steady load.

    Attributes:
        seconds: the longest time between the starts of two jobs.
        jobs: the number of jobs, all of which had a result.
        after: the seconds from the loss to the beginning of that time.
        election: the seconds in which the other servers elected a leader of the stream; 0 if they did not.
    """

    seconds: float
    jobs: int
    after: float
    election: float


@dataclass
class SteadyLoad:
    """Jobs that one client submits one after the other; complete once `steady_load` has ended.

    Attributes:
        starts: the time at which each job began to run, by `time.monotonic` of this host.
        errors: the errors of the client.
    """

    starts: list[float] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def longest_pause(self) -> tuple[float, float]:
        """Return the most seconds between two starts, and the earlier one of these."""
        return max((later - earlier, earlier) for earlier, later in pairwise(sorted(self.starts)))


@contextmanager
def steady_load(service: ReplicatedService) -> Iterator[SteadyLoad]:
    """Submit short jobs for the length of a block, then wait for the results of all."""
    made, ended = SteadyLoad(), threading.Event()
    jobs: list[Job] = []
    with service.client(timeout=_PATIENCE_SECONDS) as client:

        def submit() -> None:
            try:
                while not ended.wait(_PACE_SECONDS):
                    jobs.append(client.submit("tests.support.worker_tasks:moment"))
            except BaseException as error:  # noqa: BLE001 - the test shows whatever it is
                made.errors.append(error)

        thread = threading.Thread(target=submit)
        thread.start()
        try:
            yield made
        finally:
            ended.set()
            thread.join()
        made.starts = [job.result(timeout=_PATIENCE_SECONDS) for job in jobs]


class Servers:
    """The servers of a replicated service, by their roles."""

    def __init__(self, service: ReplicatedService) -> None:
        self.service = service
        self.cluster = service.nats

    @property
    def connected(self) -> set[int]:
        """The servers to which the leading manager is connected."""
        links = self.service.links[self.service.leader]
        return {number for number, link in enumerate(links) if link.links()}

    @property
    def takeovers(self) -> int:
        """How many times a manager began to serve."""
        return (self.service.folder / "manager.log").read_text().count('"lead_taken"')

    def lead(self, stream: str, server: int) -> None:
        """Have a server lead a stream."""
        wanted = f"n{server}"

        def led() -> bool:
            if self.cluster.stream_leader(stream) == server:
                return True
            asyncio.run(_step_down(self.cluster.urls, stream, wanted))
            return self.cluster.stream_leader(stream) == server

        until(led, _PATIENCE_SECONDS, f"{wanted} leads {stream}")

    @contextmanager
    def lost(self, server: int, *, in_order: bool = False) -> Iterator[None]:
        """Lose a server at the beginning of a block, and start it again at the end."""
        if in_order:
            self.cluster.begin_stop(server)
        else:
            self.cluster.kill(server)
        try:
            yield
        finally:
            if in_order:
                self.cluster.nodes[server].end(60)
            self.cluster.restart(server)

    def pause(self, server: int, seconds: float, *, in_order: bool = False) -> Pause:
        """Lose a server under load for *seconds*, and return the pause."""
        with steady_load(self.service) as load:
            time.sleep(_BEFORE_SECONDS)
            lost_at, lost_at_day = time.monotonic(), time.time()
            with self.lost(server, in_order=in_order):
                time.sleep(seconds)
                election = max(0.0, self._elected_at() - lost_at_day)
            time.sleep(_AFTER_SECONDS)
        assert not load.errors, load.errors
        longest, began = load.longest_pause()
        return Pause(longest, len(load.starts), began - lost_at, election)

    def _elected_at(self) -> float:
        """Return the time of day of the last election of a leader of the stream, by the servers' logs."""
        lines = [found for node in self.cluster.nodes for found in _ELECTED.findall(node.log())]
        return max(datetime.strptime(line, _LOG_TIME).timestamp() for line in lines)  # noqa: DTZ007 - local


async def _step_down(urls: list[str], stream: str, wanted: str) -> None:
    client = await nats.connect(urls, allow_reconnect=False)
    try:
        body = json.dumps({"placement": {"preferred": wanted}}).encode()
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", body, timeout=2)
        await asyncio.sleep(0.2)
    finally:
        await client.close()


@contextmanager
def servers_of(folder: Path) -> Iterator[Servers]:
    """Run two managers on three servers, and a worker."""
    service = ReplicatedService(folder, "tests.support.worker_tasks", consumers=2)
    try:
        service.start_manager()
        service.start_worker()
        yield Servers(service)
    finally:
        service.close()
