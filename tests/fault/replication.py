"""Faults of a replicated journal: its managers, its NATS servers, and the network between them.

Each notes when it struck, and the time until all was back as a fault of its own that was not injected. So
the recovery is the time from the strike to the first answer. Each looks by itself whether a manager led in
time, and whether a leader that has lost its lead has ended.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from svc.errors import Deposed
from svc.server.journal.jetstream.lead_timing import Timing
from tests.fault import surroundings
from tests.fault.strikes import Strikes
from tests.support.cgroups import WriteLimit
from tests.support.history import Fault
from tests.support.replicated_service import JOURNAL, ReplicatedService
from tests.support.small_disk import leave_room, mounted_memory, remount

_TTL_SECONDS = Timing().ttl
#: Writes per second of a slow disk, each of which is synced.
_SLOW_WRITES = 20
#: Bytes that a full disk still takes, and the size of the same disk with room, in KiB.
_SPARE_KIB, _ROOM_KIB = 256, 4 << 20


def _service(strikes: Strikes) -> ReplicatedService:
    service = strikes.site.service
    assert isinstance(service, ReplicatedService)
    service.replace_managers()
    return service


@contextmanager
def _struck(strikes: Strikes, kind: str, *, injected: bool = True) -> Iterator[Callable[[], None]]:
    """Note the fault when the value is called, and the time until the end of the block."""
    at = time.monotonic()

    def note() -> None:
        strikes.faults.append(Fault(kind, at, time.monotonic(), None, injected=injected))

    yield note
    _repair(strikes, kind)
    strikes.faults.append(Fault(kind, at, time.monotonic(), None, injected=False))


def _repair(strikes: Strikes, kind: str) -> None:
    """Wait until all servers are ready, all managers run, and one leads."""
    service = _service(strikes)
    service.nats.start()
    strikes.site.start_manager(wait=False)
    try:
        service.await_leader()
    except TimeoutError as error:
        strikes.violations.append(f"I6: {kind}: {error}")


def _require_takeover(strikes: Strikes, kind: str, besides: int) -> None:
    """Wait until the other manager leads."""
    try:
        _service(strikes).await_leader(besides, surroundings.PATIENCE_SECONDS)
    except TimeoutError:
        strikes.violations.append(f"I6: {kind}: the standby has not taken over")


def _require_end(strikes: Strikes, kind: str, number: int, code: int) -> None:
    """Wait for the end of a manager, with this exit code."""
    ended = _service(strikes).await_end(number, surroundings.PATIENCE_SECONDS)
    if ended != code:
        strikes.violations.append(f"I6: {kind}: the former leader ended with {ended} and not {code}")
        strikes.site.service.kill_manager()


# --- managers -------------------------------------------------------------------------------------------


def kill_leader(strikes: Strikes, kind: str) -> None:
    """Kill the leading manager; its standby has to take over before it is started again."""
    service = _service(strikes)
    leader = service.leader
    with _struck(strikes, kind) as note:
        service.signal(leader, signal.SIGKILL)
        service.await_end(leader)
        note()
        _require_takeover(strikes, kind, leader)


def freeze_leader(strikes: Strikes, kind: str) -> None:
    """Stop the leading manager until the standby leads, and let it go on: it has to end."""
    service = _service(strikes)
    leader = service.leader
    with _struck(strikes, kind) as note:
        service.signal(leader, signal.SIGSTOP)
        note()
        _require_takeover(strikes, kind, leader)
        time.sleep(strikes.random.uniform(0.0, _TTL_SECONDS))
        service.signal(leader, signal.SIGCONT)
        _require_end(strikes, kind, leader, Deposed.exit_code)


def hand_over(strikes: Strikes, kind: str) -> None:
    """Stop the leading manager in order: the standby leads at once, and the old one ends well."""
    service = _service(strikes)
    leader = service.leader
    with _struck(strikes, kind) as note:
        service.signal(leader, signal.SIGTERM)
        note()
        _require_takeover(strikes, kind, leader)
        _require_end(strikes, kind, leader, 0)


def kill_standby(strikes: Strikes, kind: str) -> None:
    """Kill the standby; nobody should notice."""
    service, at = _service(strikes), time.monotonic()
    standby = service.standby
    service.signal(standby, signal.SIGKILL)
    service.await_end(standby)
    strikes.note(kind, at)
    _repair(strikes, kind)


def freeze_standby(strikes: Strikes, kind: str) -> None:
    """Stop the standby for longer than the TTL of the key; nobody should notice."""
    service, at = _service(strikes), time.monotonic()
    standby = service.standby
    service.signal(standby, signal.SIGSTOP)
    time.sleep(_TTL_SECONDS * strikes.random.uniform(1.0, 2.0))
    service.signal(standby, signal.SIGCONT)
    strikes.note(kind, at)


def cut_off_leader(strikes: Strikes, kind: str) -> None:
    """Cut the leader off from all servers, while clients reach it: it must write nothing more, and ends.

    The stream tells, at the end, that it has written nothing.
    """
    service = _service(strikes)
    leader = service.leader
    with _struck(strikes, kind) as note:
        service.cut_off([leader])
        note()
        _require_takeover(strikes, kind, leader)
        time.sleep(strikes.random.uniform(0.0, _TTL_SECONDS))
        service.join()
        _require_end(strikes, kind, leader, Deposed.exit_code)


def cut_off_managers(strikes: Strikes, kind: str) -> None:
    """Cut both managers off from all servers for a while."""
    service = _service(strikes)
    with _struck(strikes, kind):
        service.cut_off([0, 1])
        time.sleep(strikes.random.uniform(0.5, 3 * _TTL_SECONDS))
        service.join()
        _note_now(strikes, kind)


def lose_answers(strikes: Strikes, kind: str) -> None:
    """Lose the answers to the leader's appends for a while: it has to find out which were kept."""
    service = _service(strikes)
    with _struck(strikes, kind):
        for _ in range(strikes.random.randrange(1, 4)):
            service.lose_answers(service.leader)
            time.sleep(strikes.random.uniform(0.1, 0.4 * _TTL_SECONDS))
            service.join()
            time.sleep(strikes.random.uniform(0.1, 0.5))
        _note_now(strikes, kind)


def _note_now(strikes: Strikes, kind: str) -> None:
    """Note a fault that is over at this moment, from which its recovery is measured."""
    now = time.monotonic()
    strikes.faults.append(Fault(kind, now, now, None))


# --- servers --------------------------------------------------------------------------------------------


def kill_servers(strikes: Strikes, kind: str) -> None:
    """Kill servers, and start them again after a while."""
    service = _service(strikes)
    victims = _victims(strikes, kind)
    with _struck(strikes, kind) as note:
        for victim in victims:
            service.nats.kill(victim)
        note()
        time.sleep(strikes.random.uniform(0.5, 6.0))


def freeze_servers(strikes: Strikes, kind: str) -> None:
    """Stop servers for a while: they answer nothing, and their connections stay."""
    service = _service(strikes)
    victims = _victims(strikes, kind)
    with _struck(strikes, kind) as note:
        for victim in victims:
            service.nats.freeze(victim)
        note()
        time.sleep(strikes.random.uniform(3.0, 12.0))
        for victim in victims:
            service.nats.thaw(victim)


def stop_server(strikes: Strikes, kind: str) -> None:
    """Stop a server in order, and start it again."""
    service = _service(strikes)
    (victim,) = _victims(strikes, kind)
    with _struck(strikes, kind) as note:
        service.nats.begin_stop(victim)
        note()
        service.nats.nodes[victim].end(60)


def cut_off_server(strikes: Strikes, kind: str) -> None:
    """Lose all that goes between one server and the others."""
    service = _service(strikes)
    (victim,) = _victims(strikes, kind)
    with _struck(strikes, kind) as note:
        service.nats.cut_off(victim)
        note()
        time.sleep(strikes.random.uniform(1.0, 12.0))
        service.nats.join(victim)


def empty_server(strikes: Strikes, kind: str) -> None:
    """Kill a server, and start it with nothing of what it had."""
    service = _service(strikes)
    (victim,) = _victims(strikes, kind)
    with _struck(strikes, kind) as note:
        service.nats.kill(victim)
        note()
        service.nats.restart(victim, empty=True)


def fill_disk(strikes: Strikes, kind: str) -> None:
    """Give a server a disk of its own, and let it be full; later the server is started with its old one."""
    service = _service(strikes)
    (victim,) = _victims(strikes, kind)
    node = service.nats.nodes[victim]
    store = node.folder / "store"
    with _struck(strikes, kind, injected=False):
        service.nats.kill(victim)
        with mounted_memory(store, _ROOM_KIB):
            service.nats.restart(victim)
            at = time.monotonic()
            leave_room(store, _SPARE_KIB)
            strikes.until(lambda: "no space left" in node.log().lower(), surroundings.PATIENCE_SECONDS)
            strikes.faults.append(Fault(kind, at, time.monotonic(), None))
            time.sleep(strikes.random.uniform(0.0, 3.0))
            remount(store, f"size={_ROOM_KIB}k")
            service.nats.kill(victim)
        service.nats.restart(victim)


def slow_disk(strikes: Strikes, kind: str) -> None:
    """Let the disk of a server take only a few writes per second."""
    service = _service(strikes)
    (victim,) = _victims(strikes, kind)
    process = service.nats.nodes[victim].process
    assert process is not None
    at = time.monotonic()
    with WriteLimit(service.nats.nodes[victim].folder, _SLOW_WRITES) as limit:
        limit.add(process.pid)
        time.sleep(strikes.random.uniform(2.0, 6.0))
    strikes.note(kind, at, None)
    _repair(strikes, kind)


def restart_everything(strikes: Strikes, kind: str) -> None:
    """Stop and start all servers, then all managers, then all workers, one after the other."""
    site, service = strikes.site, _service(strikes)
    with _struck(strikes, kind) as note:
        note()
        for victim in range(len(service.nats.nodes)):
            service.nats.stop(victim)
            service.nats.restart(victim)
        for number in (service.standby, service.leader):
            service.signal(number, signal.SIGTERM)
            _require_end(strikes, kind, number, 0)
            service.await_leader(number)
            service.start_again(number)
        for name, worker in site.workers.items():
            worker.terminate()
            try:
                worker.wait(surroundings.PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                strikes.violations.append(f"I12: {kind}: worker {name} did not leave")
                site.send(site.tree(name), signal.SIGKILL)
                worker.wait()
            site.start_worker(name)


def _victims(strikes: Strikes, kind: str) -> Sequence[int]:
    """Return the numbers of the servers that a fault is about."""
    cluster = _service(strikes).nats
    numbers = list(range(len(cluster.nodes)))
    if "the stream's leader" in kind:
        return [cluster.wait_leader(JOURNAL)]
    if "all" in kind:
        return numbers
    return strikes.random.sample(numbers, 2 if "two" in kind else 1)


#: The faults of this module, and the feature of the machine that each needs: an attribute of the site.
REPLICATION: dict[str, tuple[Callable[[Strikes, str], None], str]] = {
    "F36 kill -9 the leader": (kill_leader, ""),
    "F36 freeze the leader beyond its TTL": (freeze_leader, ""),
    "F36 the leader hands over": (hand_over, ""),
    "F37 kill -9 the standby": (kill_standby, ""),
    "F37 freeze the standby beyond the TTL": (freeze_standby, ""),
    "F38 kill -9 a NATS server": (kill_servers, ""),
    "F38 kill -9 the stream's leader": (kill_servers, ""),
    "F38 kill -9 two of three NATS servers": (kill_servers, ""),
    "F38 kill -9 all NATS servers": (kill_servers, ""),
    "F39 freeze a NATS server": (freeze_servers, ""),
    "F39 freeze the stream's leader": (freeze_servers, ""),
    "F39 freeze two of three NATS servers": (freeze_servers, ""),
    "F39 freeze all NATS servers": (freeze_servers, ""),
    "F40 a NATS server stops in order": (stop_server, ""),
    "F40 a NATS server comes back empty": (empty_server, ""),
    "F41 a leader is cut off from NATS": (cut_off_leader, ""),
    "F41 both managers are cut off from NATS": (cut_off_managers, ""),
    "F41 a NATS server is cut off from the others": (cut_off_server, ""),
    "F41 the stream's leader is cut off from the others": (cut_off_server, ""),
    "F42 answers to appends are lost": (lose_answers, ""),
    "F43 full disk of a NATS server": (fill_disk, "mounts"),
    "F43 full disk of the stream's leader": (fill_disk, "mounts"),
    "F43 slow disk of a NATS server": (slow_disk, "slow_disks"),
    "F43 slow disk of the stream's leader": (slow_disk, "slow_disks"),
    "F44 all is restarted, one by one": (restart_everything, ""),
}
