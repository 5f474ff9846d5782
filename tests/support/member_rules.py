"""The rules of the queue's model about its members: workers and consumers that come, go and are lost."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from svc.domain import commands as c
from svc.domain import membership
from svc.domain import replies as r
from svc.domain.members import Member
from svc.domain.retry import CRASH_BUDGET
from tests.support.queue_model import CONSUMERS, ERROR, WORKERS, QueueModel


class MemberRules(QueueModel):
    """Members come, go and are lost; the rules about jobs and time are in a subclass."""

    @rule(worker=st.sampled_from(WORKERS))
    def supervise(self, worker: str) -> None:
        member = self.supervisors[worker] = Member()
        self.ask(c.Hello(1, "worker", f"{worker}-0", worker), member)

    @rule(worker=st.sampled_from(WORKERS))
    def supervisor_gone(self, worker: str) -> None:
        member = self.supervisors.pop(worker, None)
        if member is not None:
            membership.disconnected(self.state, member, self.now)

    @rule(name=st.sampled_from(CONSUMERS), forgets=st.booleans())
    def connect(self, name: str, forgets: bool) -> None:
        """A consumer comes (back): it names its leases, or the replies never reached it."""
        mine = {token: lease for token, lease in self.held.items() if lease.consumer == name}
        if forgets and mine:
            token = max(mine)
            lease = mine.pop(token)
            self.stale.append(c.Ack(token, lease.numbers[0], [b"x"], [0.0]))
            del self.held[token]
            if token in self.state.leases:
                self._back(lease)
        held = [c.Held(t, each.origin, each.numbers[0], len(each.numbers)) for t, each in mine.items()]
        old, self.members[name] = self.members.get(name), Member()
        said = c.Hello(1, "consumer", name, name[0], tasks=["m:f"], held=held)
        self.awaited = {job: holder for job, holder in self.awaited.items() if holder != name}
        welcome = self.ask(said, self.members[name])
        assert isinstance(welcome, r.Welcome)
        for token, lease in mine.items():
            ids = [f"{lease.origin}-{number}" for number in lease.numbers]
            if token in welcome.lost:
                del self.held[token]
                self.stale.append(c.Ack(token, lease.numbers[0], [b"x"], [0.0]))
                assert token not in self.state.leases
            else:
                for job in ids:
                    assert self.jobs[job].state in ("ready", "leased")
                    self.jobs[job].state = "leased"
        if old is not None:
            membership.disconnected(self.state, old, self.now)
            self.commit()

    @rule(name=st.sampled_from(CONSUMERS))
    def cut(self, name: str) -> None:
        member = self.members.pop(name, None)
        if member is not None:
            membership.disconnected(self.state, member, self.now)
            self.commit()

    @rule(name=st.sampled_from(CONSUMERS))
    def leave(self, name: str) -> None:
        member = self.members.pop(name, None)
        if member is not None:
            self.ask(c.Leave(), member)
            self._drop_leases_of(name)

    @rule(name=st.sampled_from(CONSUMERS), executing=st.booleans())
    def lost(self, name: str, executing: bool) -> None:
        supervisor = self.supervisors.get(name[0])
        if supervisor is None or name not in self._listed(name[0]):
            return
        token = min((t for t, lease in self.held.items() if lease.consumer == name), default=0)
        if not executing or token not in self.state.leases:
            self.ask(c.Lost(name, ERROR), supervisor)
        else:
            number = self.held[token].numbers[0]
            job = self.jobs[f"{self.held[token].origin}-{number}"]
            self.ask(c.Lost(name, ERROR, token, number), supervisor)
            del self.held[token].numbers[0]
            job.charged[1] += 1
            self._settle(job, "dead" if job.charged[1] >= CRASH_BUDGET else "ready")
        self._drop_leases_of(name)
        self.members.pop(name, None)

    @precondition(lambda self: self.state.absentees)
    @rule(worker=st.sampled_from(WORKERS))
    def name_consumers(self, worker: str) -> None:
        """A supervisor that has come back names its consumers."""
        supervisor = self.supervisors.get(worker)
        if supervisor is not None and supervisor.connected:
            awaited = {consumer for consumer in self.awaited.values() if consumer[0] == worker}
            self.ask(c.Extend(consumers=sorted(awaited.union(self._listed(worker)))), supervisor)
