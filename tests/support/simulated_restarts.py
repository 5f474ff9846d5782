"""The restarts of a simulation: the manager is killed, and its workers come back, all, some or none.

Whoever comes back in time keeps its jobs: no job runs again because of the restart alone. The manager waits
for nobody who is back, and keeps no job back that no absent worker takes.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from svc.domain.members import Member
from svc.errors import JournalError
from tests.support.simulated_clients import Plain, Reader
from tests.support.simulated_peer import Peer, Violation
from tests.support.simulated_workers import Consumer, Supervisor
from tests.support.state_checks import check_journal

if TYPE_CHECKING:
    from tests.support.simulation import World


class Restarts:
    """Kills the manager of a world, and checks for whom it waits afterwards.

    Attributes:
        came_back: how often all, some or none of the workers outlived the manager.
        late: consumers that were given up while they lived.
        beyond: executions that began while a worker was awaited.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.came_back: Counter[str] = Counter()
        self.late = self.beyond = 0
        #: The workers that cannot reach the manager, each until a time.
        self._away: dict[str, float] = {}

    def kill(self) -> None:
        """Kill the manager, and perhaps workers with it; messages on their way may arrive or not."""
        world = self.world
        self._lose_workers()
        for peer in world.peers:
            if isinstance(peer, Plain):
                world.hit(peer)
        for line in world.lines:
            line.broken = True
            if world.rng.random() < 0.5:
                line.to_peer.clear()
        world.lines.clear()
        world.journal = world.journals.reopened(world.journal)
        world.host = world.new_host()
        check_journal(world.host.state, world.journal)
        for peer in world.peers:
            if isinstance(peer, Consumer):
                # Their grant left before the commit that would have accepted them.
                world.meet(held for held in peer.hands() if world.state_of(held[1]) == "unknown")
            if isinstance(peer, Reader):
                self._check_read(peer)

    def kill_in_commit(self) -> None:
        """Kill the manager within a turn: its grants have been sent, the commit has not come."""

        def fail(records: object, forget: object = ()) -> None:
            raise JournalError("killed")

        setattr(self.world.journal, "append", fail)  # noqa: B010  # a method of this journal alone
        with contextlib.suppress(JournalError):
            self.world.host.turn()
        self.kill()

    def give_up(self) -> None:
        """Note the jobs of the consumers that live, and have not come back in time."""
        absentees = self.world.host.state.absentees
        if absentees and self.world.clock.now() >= absentees.until:
            for peer in self.world.peers:
                if isinstance(peer, Consumer) and not self._has_come_back(peer):
                    held = [*peer.hands(), *peer.unread()]
                    self.late += bool(held)
                    self.world.meet(held)

    def check(self) -> None:
        """Check that the manager waits for nobody in vain.

        Raises:
            Violation: it waits for a worker that is back, or for a job that no absent worker takes.
        """
        absentees = self.world.host.state.absentees
        for supervisor in self.world.supervisors:
            if supervisor.worker in absentees.names and self._is_back(supervisor):
                raise Violation(f"{supervisor.worker} is back, and waited for")
        taken = {queue for queues, _, _ in absentees.names.values() for queue in queues}
        for lane in absentees.lanes:
            if lane.count and lane.terms.queue not in taken:
                raise Violation(f"jobs of {lane.terms.queue} wait for {sorted(absentees.names)}")
        if self.world.host.commits.outbox.behind:
            return  # an answer may wait for a commit
        for peer in self.world.peers:
            if isinstance(peer, Consumer) and self._has_come_back(peer) and peer.line is not None:
                self._check_idle(peer, peer.line.member)

    def is_away(self, peer: Peer) -> bool:
        """Return whether a process belongs to a worker that does not reach the manager yet."""
        if isinstance(peer, Consumer):
            peer = peer.supervisor
        return isinstance(peer, Supervisor) and self.world.clock.now() < self._away.get(peer.worker, 0.0)

    def _lose_workers(self) -> None:
        world = self.world
        count = len(world.supervisors)
        lost = world.rng.choice([0, 0, 1, count])
        seconds = world.host.state.limits.reconnect_seconds
        for supervisor in world.supervisors:
            away = world.rng.choice([0.0, 0.5, 1.5]) * seconds
            self._away[supervisor.worker] = world.clock.now() + away
        self.came_back["none" if lost == count else "some" if lost else "all"] += 1
        for supervisor in world.rng.sample(world.supervisors, lost):
            world.kill_worker(supervisor)

    def _check_read(self, reader: Reader) -> None:
        if not reader.seen:
            return
        part = self.world.stream(reader.job)
        if part.token == reader.token and part.values[: len(reader.seen)] != reader.seen:
            raise Violation(f"{reader.job} has lost partial results that were read: {reader.seen}")

    def _has_come_back(self, peer: Peer) -> bool:
        """Return whether a peer has said hello to this manager, over a line that still holds."""
        line = peer.line
        return line is not None and line in self.world.lines and line.member.worker is not None

    def _is_back(self, supervisor: Supervisor) -> bool:
        if supervisor.named is None or supervisor.pending is not None or not self._has_come_back(supervisor):
            return False
        return all(each.alive and self._has_come_back(each) for each in supervisor.named)

    def _check_idle(self, consumer: Consumer, member: Member) -> None:
        """Check that nothing waits that an idle consumer, whose request has arrived, could run."""
        state = self.world.host.state
        lane = state.lanes.best(member.subscription)
        on_its_way = consumer.line is None or consumer.line.to_manager or consumer.line.to_peer
        asked = member.outstanding and consumer.is_idle and not member.leases and not on_its_way
        if lane is None or not asked or state.ledger.drains.in_force:
            return
        if member.worker is None or not member.worker.is_silent(self.world.clock.now()):
            raise Violation(f"{consumer.name} is idle beside {lane.count} jobs of {lane.terms.queue}")
