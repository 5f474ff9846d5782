"""The scene of a story: a queue host with a small journal, peers of each role, a check after each step."""

from __future__ import annotations

import math
import pickle
import random
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

from svc import wire
from svc.broker.commit import RecentEvents
from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.events import AnyEvent
from svc.domain.limits import Limits
from svc.domain.members import RECONNECT_GRACE
from svc.domain.roles import Role
from svc.errors import BadRequest, JournalError
from svc.server.connection import Connection, Stage
from svc.server.connections import Connections
from svc.server.journal import OutputFile, SqliteJournal
from svc.server.journal.rows import Row, event_of
from svc.server.journal.store import rows_of
from svc.server.keys import Key, KeyRing
from svc.server.loop import Turns
from svc.server.peer_log import PeerLog
from svc.server.protocol import ConnectionProtocol
from svc.telemetry.metrics import ManagerMetrics
from tests.fuzz import steps as s
from tests.fuzz.invariants import check_cheaply, check_deserted, check_renewed
from tests.fuzz.oracle import Finding, bounded_time
from tests.fuzz.targets import read_answer
from tests.support.clock import FakeClock
from tests.support.inside import waiting_lessees, waiting_puts
from tests.support.state_checks import check_journal, check_state, portrait

#: The share of stories with a journal in a file.
_SQLITE_SHARE = 0.04
#: The share of stories in which long frames are served over many turns.
_HURRIED_SHARE = 0.25
_SECRET = b"the key of a peer"


class RowJournal(MemoryJournal):
    """A journal in memory with rows like those in a file: so values that no row can hold are found."""

    def __init__(self, incarnation: int = 1) -> None:
        """Start empty."""
        super().__init__(incarnation)
        self._rows: dict[int, Row] = {}

    def reopened(self) -> RowJournal:
        """Return the journal that a restart would find."""
        successor = RowJournal(self.incarnation + 1)
        successor._rows = self._rows
        self.close()
        return successor

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> None:
        """Keep *records* as rows and delete those in *forget*."""
        self._require_open()
        for row in rows_of(records):
            if row[0] in self._rows:
                raise JournalError(f"the journal has a row {row[0]} already")
            self._rows[row[0]] = row
        for sequence in forget:
            self._rows.pop(sequence, None)

    def read(self, sequence: int) -> AnyEvent:
        """Return one event."""
        self._require_open()
        row = self._rows.get(sequence)
        if row is None:
            raise JournalError(f"the journal has no row {sequence}")
        return event_of(*row[:3])

    def replay(self) -> Iterator[tuple[int, AnyEvent]]:
        """Yield every event in order."""
        self._require_open()
        for number in sorted(self._rows):
            yield number, self.read(number)


class Peer:
    """One connection, and its open requests."""

    def __init__(self, listener: socket.socket, role: Role) -> None:
        """Connect with a key for *role*, past the handshake."""
        self._far = socket.create_connection(listener.getsockname())
        # The end is a reset: thousands of closed connections would wait for a minute each.
        for each in (self._far, accepted := listener.accept()[0]):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection = Connection(accepted, self._far.getsockname())
        self.connection.key = Key(role, _SECRET)
        self.connection.stage = Stage.SERVING
        self.role = role
        self.requests = 0
        #: Frames that have no answer yet, and the number of commands in each.
        self.asked: dict[int, int] = {}

    @property
    def member(self) -> Any:
        """The queue's record of the peer."""
        return self.connection.member

    def close(self) -> None:
        """Break the connection."""
        self.connection.close()
        self._far.close()


class Scene:
    """Runs the steps of one story. A Finding, or any other exception, means that a promise was broken."""

    def __init__(self, seed: str, host: type[QueueHost] = QueueHost) -> None:
        """Choose limits and a journal with *seed*."""
        rng = random.Random(seed)
        self._make_host = host
        self.clock = FakeClock()
        self.limits = _limits(rng)
        self._recent_bytes = rng.choice((100, 2000))
        #: Whether each turn has time for the first commands of a frame only.
        self._hurried = rng.random() < _HURRIED_SHARE
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.journal: RowJournal | SqliteJournal = RowJournal()
        if rng.random() < _SQLITE_SHARE:
            self._folder = tempfile.TemporaryDirectory(prefix="svc-fuzz-")
            self.journal = SqliteJournal.open(f"{self._folder.name}/journal", "os")
        self.peers: dict[int, Peer] = {}
        #: The answers to stock clients during the current call.
        self._answers: list[tuple[Connection, tuple[Any, ...]]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open()

    def __enter__(self) -> Self:
        """Return the scene."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close all connections and the journal."""
        for peer in self.peers.values():
            peer.close()
        self._listener.close()
        self.journal.close()
        if self._folder is not None:
            self._folder.cleanup()

    def method(self, typeid: str, name: str) -> Callable[..., None]:
        """Return the function for a stock client's call; its signature has the arguments."""
        return self.protocol.plain.objects.method(typeid, name)

    def tell(self, step: s.Step) -> None:
        """Run one step, and check the invariants after it.

        Raises:
            Finding: a promise was broken; any other exception means the same.
        """
        with bounded_time():
            _TOLD_BY[type(step)](self, step)
            check_cheaply(self.host.state)

    # --- steps --------------------------------------------------------------------------------------

    def _connect(self, step: s.Connect) -> None:
        peer = self.peers[step.peer] = Peer(self._listener, step.role)
        self.host.state.arrived(peer.member)

    def _hang_up(self, step: s.HangUp) -> None:
        peer = self.peers.pop(step.peer, None)
        if peer is not None:
            self.host.disconnected(peer.member)
            peer.close()

    def _frame(self, step: s.Frame) -> None:
        peer = self.peers.get(step.peer)
        if peer is not None:
            peer.requests += 1
            peer.asked[peer.requests] = len(step.commands)
            self._hear(peer, wire.encode_request(peer.requests, step.commands))
            self.turns.go_on()

    def _call(self, step: s.Call) -> None:
        peer = self.peers.get(step.peer)
        if peer is None:
            return
        alone, before = peer.member.outstanding == 0, self._submitted()
        self._answers = []
        self._hear(peer, _message((step.typeid, step.method, step.args, step.kwds), step.protocol))
        if alone and step.method in _PUTS and not _has_key(step):
            self.host.turn()
            accepted = self._answers == [(peer.connection, ("#RETURN", None))]
            if accepted and self._submitted() == before:
                raise Finding("a put was answered, and nothing was queued")

    def _hear(self, peer: Peer, message: bytes | bytearray) -> None:
        if not peer.connection.closed and peer.connection.work is None:
            self.protocol.handle(peer.connection, memoryview(message)[wire.HEADER.size :])

    def _typed(self, step: s.Typed) -> None:
        peer = self.peers.get(step.peer)
        if peer is None or not _let_in(step.commands):
            return
        peer.member.outstanding += 1
        self.host.call(step.commands, peer.member, partial(self._answer, peer, len(step.commands)))

    def _answer(self, peer: Peer, asked: int, replies: list[r.Reply]) -> None:
        peer.member.outstanding -= 1
        if len(replies) != asked:
            raise Finding(f"{asked} commands got {len(replies)} replies")
        wire.decode_response(wire.response_frame(wire.encode_response(1, replies)[wire.HEADER.size :]) or b"")

    def _turn(self, step: s.Turn) -> None:
        if step.early:
            self.host.hand_out()
        else:
            self.host.turn()
            self.turns.go_on()

    def _pass(self, step: s.Pass) -> None:
        self.clock.advance(step.seconds)
        self.host.turn()

    def _silence(self, step: s.Silence) -> None:
        self.host.turn()
        self.clock.advance(self.limits.lease_seconds + 1.0)
        self.host.turn()
        check_renewed(self.host.state)

    def _restart(self, step: s.Restart) -> None:
        before = self._broken_off(step.committed)
        if isinstance(self.journal, RowJournal):
            self.journal = self.journal.reopened()
        elif self._folder is not None:
            self.journal.close()
            self.host.outputs.close()
            self.journal = SqliteJournal.open(f"{self._folder.name}/journal", "os")
        self._open()
        self._compare(before)

    def _recover(self, step: s.Recover) -> None:
        before = self._broken_off(step.committed)
        self.host.discard()
        self.host.recover_in_place()
        self.protocol.begin_anew()
        self._compare(before)

    def _broken_off(self, committed: bool) -> dict[str, Any]:
        """Close all connections; return the parts that a restart must keep if the turn is *committed*."""
        if committed:
            self.host.turn()
        before = portrait(self.host.state.ledger) if committed else {}
        for peer in self.peers.values():
            peer.close()
        self.peers.clear()
        return before

    def _compare(self, before: dict[str, Any]) -> None:
        check_state(self.host.state)
        if not before:
            return
        after = portrait(self.host.state.ledger)
        if isinstance(self.journal, SqliteJournal):
            # Its newest row stays until there is a newer one, even that of a forgotten origin or value.
            newest = max((row for row, _ in self.journal.replay()), default=0)
            del after["known numbers"]
            name, known = "large values", before["large values"]
            after[name] = [each for each in after[name] if each in known or each[6] != [newest]]
        for name, value in after.items():
            if value != before[name]:
                raise Finding(f"the {name} differ after a restart: {before[name]!r:.500}, {value!r:.500}")

    def _desert(self, step: s.Desert) -> None:
        for number in list(self.peers):
            self._hang_up(s.HangUp(number))
        for seconds in (0.0, RECONNECT_GRACE, self.limits.lease_seconds + 1.0, 1.0):
            self.clock.advance(seconds)
            self.host.turn()
        check_deserted(self.host.state)
        if waiting_lessees(self.host) or waiting_puts(self.host) != (0, 0):
            raise Finding("requests for jobs, or puts, outlive those who made them")

    def _review(self, step: s.Review) -> None:
        self.host.turn()
        check_state(self.host.state)
        if isinstance(self.journal, RowJournal):
            check_journal(self.host.state, self.journal)

    # --- messages of the manager --------------------------------------------------------------------

    def send(self, connection: Connection, message: bytes | bytearray) -> None:
        """Take a message of the manager to a peer, and check that a client could read it."""
        if len(message) > wire.MESSAGE_BYTES_MAX:
            raise Finding(f"an answer has {len(message)} bytes")
        body = bytes(message[wire.HEADER.size :])
        frame = wire.response_frame(body)
        if frame is None:
            self._answers.append((connection, read_answer(body)))
            return
        request, replies = wire.decode_response(frame)
        peer = next(each for each in self.peers.values() if each.connection is connection)
        asked = peer.asked.pop(request, None)
        if request and len(replies) != asked:
            raise Finding(f"{asked} commands got {len(replies)} replies")

    def opened(self, connection: Connection) -> None:
        """Do nothing: peers are connected without a handshake."""

    # --- shared -------------------------------------------------------------------------------------

    def _open(self) -> None:
        metrics = ManagerMetrics()
        outputs = OutputFile(Path(self._folder.name, "output"), 1 << 20) if self._folder else None
        self.host = self._make_host(
            self.journal, clock=self.clock, limits=self.limits, observer=metrics, exposition=metrics.collect,
            outputs=outputs,
        )  # fmt: skip
        self.host.commits.recent = RecentEvents(self._recent_bytes)
        self.peer_log = PeerLog(metrics)
        self.turns = Turns()
        self.turns.until = -math.inf if self._hurried else math.inf
        self.protocol = ConnectionProtocol(
            self.host, KeyRing.of_authkey(_SECRET), cast(Connections, self), self.turns
        )

    def _submitted(self) -> int:
        return sum(counts.submitted for counts in self.host.state.ledger.counts.values())


def _limits(rng: random.Random) -> Limits:
    """Return limits that are so small that jobs are forgotten, merged and read again all the time."""
    return Limits(
        lease_seconds=5.0,
        max_job_bytes=60_000,
        max_value_bytes=60_000,
        all_values_bytes=rng.choice((20, 100_000)),
        piece_bytes=1,
        unclaimed_seconds=2.0,
        max_queue_jobs=rng.choice((4, 40, 40)),
        parked_bytes=rng.choice((100, 100_000)),
        retention_seconds=rng.choice((3.0, 30.0)),
        retention_jobs=rng.choice((5, 30)),
        dead_retention_seconds=rng.choice((2.0, 300.0)),
        window_bytes=rng.choice((0, 300, 100_000)),
        grant_jobs=8,
        member_leases=rng.choice((5, 100)),
        grant_bytes=rng.choice((1, 1000, 100_000)),
        merge_seconds=rng.choice((0.2, 5.0)),
        reconnect_seconds=1.0,
    )


def _message(request: tuple[Any, ...], protocol: int) -> bytes:
    return wire.with_header(pickle.dumps(request, protocol))


def _let_in(commands: Sequence[c.Command]) -> bool:
    """Return whether the wire accepts these commands; commands of the host alone have no bounds there."""
    known = [each for each in commands if each.on_wire]
    try:
        wire.decode_request(wire.request_frame(wire.encode_request(1, known)[wire.HEADER.size :]) or b"")
    except BadRequest:
        return False
    return True


def _has_key(step: s.Call) -> bool:
    """Return whether the answer to a put may be an earlier job."""
    item = step.args[0] if step.args else step.kwds.get("item")
    return isinstance(item, dict) and "key" in item


_PUTS = ("put", "put_nowait")
_TOLD_BY: dict[type[Any], Callable[[Scene, Any], None]] = {
    s.Connect: Scene._connect,
    s.HangUp: Scene._hang_up,
    s.Frame: Scene._frame,
    s.Typed: Scene._typed,
    s.Call: Scene._call,
    s.Turn: Scene._turn,
    s.Pass: Scene._pass,
    s.Silence: Scene._silence,
    s.Restart: Scene._restart,
    s.Recover: Scene._recover,
    s.Desert: Scene._desert,
    s.Review: Scene._review,
}
