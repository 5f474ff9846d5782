"""Faults that affect all processes: the network, memory, descriptors, processes, CPU, the time of day.

Each function gets the `Strikes` that notes the fault, and the kind. A fault without effect (the kernel found
memory after all) is not noted.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import shutil
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from svc.addresses import parse_address
from svc.key_files import read_authkey
from svc.wire import with_header
from tests.fault.site import LEASE_SECONDS
from tests.fault.strikes import Strikes
from tests.support.history import Fault
from tests.support.journals import age
from tests.support.namespaces import LOSE_INCOMING, LOSE_OUTGOING
from tests.support.stranger import Stranger

#: Bytes that a manager may still take before it is out of memory, and bytes that it then gets.
_SPARE_BYTES, _FLOOD_BYTES = 8 << 20, 40 << 20
#: Seconds in which a fault has its effect, on a busy machine; without one it is not noted.
_NOTICE_SECONDS = 30.0
_JUMPS = (3600, -3600, 6 * 3600, -12 * 3600, 86400)

# --- the network --------------------------------------------------------------------------------------


def partition(strikes: Strikes, kind: str) -> None:
    """Lose all packets from or to a worker's network for up to twice its lease; neither side is told."""
    chains = {
        "F10 partition, both ways": (LOSE_INCOMING, LOSE_OUTGOING),
        "F10 partition, manager unheard": (LOSE_INCOMING,),
        "F10 partition, worker unheard": (LOSE_OUTGOING,),
    }[kind]
    _lose(strikes, kind, strikes.random.triangular(0.5, 2 * LEASE_SECONDS, 1.0), *chains)


def lose_packets(strikes: Strikes, kind: str) -> None:
    """Lose 5 to 25 % of the packets each way."""
    seconds, share = strikes.random.uniform(1.0, 3.0), strikes.random.uniform(0.05, 0.25)
    _lose(strikes, kind, seconds, LOSE_INCOMING, LOSE_OUTGOING, share=share)


def _lose(strikes: Strikes, kind: str, seconds: float, *chains: str, share: float = 1.0) -> None:
    network = strikes.site.network
    at, pids = time.monotonic(), strikes.site.tree("direct")
    network.lose(*chains, share=share)
    try:
        time.sleep(seconds)
    finally:
        network.heal()
    strikes.note(kind, at, frozenset((*pids, *strikes.site.tree("direct"))))


def peers(strikes: Strikes, kind: str) -> None:
    """Silent, slow, foreign and hostile peers, all at once; one more does its handshake very slowly."""
    at = time.monotonic()
    address = parse_address(strikes.site.service.serves_at)
    with contextlib.ExitStack() as open_ones:
        strangers: list[Stranger] = []
        for _ in range(90):
            with suppress(OSError):
                strangers.append(open_ones.enter_context(Stranger((address.host, address.port))))
        end = time.monotonic() + strikes.random.uniform(0.5, 1.5)
        for place, said in enumerate(_HOSTILE):
            with suppress(OSError, AssertionError):
                _say(strangers[-1 - place], said, read_authkey(strikes.site.service.authkey_file))
        while time.monotonic() < end:
            for stranger in strangers[-20:]:
                with suppress(OSError):
                    stranger.send(b"\0")
            time.sleep(0.1)
    strikes.note(kind, at)


def _say(stranger: Stranger, said: bytes, authkey: bytes) -> None:
    """Send bytes, after a right handshake if they are a request, else at once."""
    if said.startswith(b"\x80"):
        stranger.socket.settimeout(2.0)
        stranger.serve(authkey)
        stranger.send(with_header(said))
    else:
        stranger.send(said)


_HOSTILE = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00" * 4096,
    os.urandom(2048),
    struct.pack("!i", -1) + struct.pack("!Q", 1 << 40),
    with_header(b"#CHALLENGE#" + b"x" * 40),
    with_header(b"{sha256}" + b"\0" * 32),
    b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    b"\x80\x04j\xff\xff\xff\x7f.",
    pickle.dumps((None, "shutdown", (), {})),
    pickle.dumps(("tasks", "__class__", (), {})),
)

# --- memory, descriptors, processes, CPU --------------------------------------------------------------


def starve_manager(strikes: Strikes, kind: str) -> None:
    """Limit the manager's memory to little more than it has, and send data until the kernel kills it."""
    service, group = strikes.site.service, strikes.site.groups["manager"]
    assert service.manager is not None
    at = time.monotonic()
    for spare in (_SPARE_BYTES, 2 * _SPARE_BYTES, 3 * _SPARE_BYTES):
        # Refused if it takes more just now; the flood is larger than any of these.
        with suppress(OSError):
            group.limit_memory(group.memory() + spare)
            break
    _send_too_much(strikes)
    killed = strikes.until(lambda: service.manager and service.manager.poll() is not None, _NOTICE_SECONDS)
    if not killed:
        service.kill_manager()
    group.limit_memory(None)
    strikes.note(kind if killed else "F4 kill -9 the manager", at, None)
    strikes.site.start_manager()


def _send_too_much(strikes: Strikes) -> None:
    """Send messages with the right key that never end."""
    address = parse_address(strikes.site.service.serves_at)
    with suppress(OSError, AssertionError), Stranger((address.host, address.port)) as stranger:
        stranger.socket.settimeout(_NOTICE_SECONDS)
        stranger.serve(read_authkey(strikes.site.service.authkey_file))
        stranger.send(struct.pack("!i", _FLOOD_BYTES + 1))
        for _ in range(_FLOOD_BYTES >> 20):
            stranger.send(bytes(1 << 20))


def take_descriptors(strikes: Strikes, kind: str) -> None:
    """Leave the manager no descriptors for new connections, and try to make some."""
    manager = strikes.site.service.manager
    assert manager is not None
    at, log = time.monotonic(), strikes.site.log_of("manager")
    highest = max(int(link.name) for link in Path(f"/proc/{manager.pid}/fd").iterdir())
    before = resource.prlimit(manager.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(manager.pid, resource.RLIMIT_NOFILE, (highest + 3, before[1]))
    try:
        with _flood(strikes, 60):
            struck = strikes.until(lambda: "accept_paused" in log(), _NOTICE_SECONDS)
            time.sleep(strikes.random.uniform(0.2, 1.0))
    finally:
        resource.prlimit(manager.pid, resource.RLIMIT_NOFILE, before)
    if struck:
        strikes.note(kind, at)


@contextmanager
def _flood(strikes: Strikes, count: int) -> Iterator[None]:
    address = parse_address(strikes.site.service.serves_at)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            peer = stack.enter_context(socket.socket())
            peer.setblocking(False)
            peer.connect_ex((address.host, address.port))
        yield


def take_processes(strikes: Strikes, kind: str) -> None:
    """Kill a consumer while its worker may start no other process; note all processes that die of that."""
    name = strikes.random.choice(sorted(strikes.site.workers))
    group, log = strikes.site.groups[name], strikes.site.log_of("worker")
    at, below = time.monotonic(), strikes.site.tree(name)[1:]
    group.limit_processes(1)
    strikes.site.send(strikes.site.consumers(name)[-1:], signal.SIGKILL)
    struck = strikes.until(lambda: "consumer_died" in log(), _NOTICE_SECONDS)
    time.sleep(strikes.random.uniform(0.2, 1.5))
    group.limit_processes(None)
    below += strikes.site.tree(name)[1:]
    # A forkserver that could not fork ends its consumers a little later.
    strikes.until(strikes.site.complete, 60.0)
    strikes.faults.append(Fault(kind, at, time.monotonic(), frozenset(below), injected=struck, fatal=True))


def squeeze(strikes: Strikes, kind: str) -> None:
    """Limit a worker or the manager to a tenth of one CPU; without groups, stop it 9/10 of the time."""
    name = "manager" if "manager" in kind else strikes.random.choice(sorted(strikes.site.workers))
    at, seconds = time.monotonic(), strikes.random.uniform(0.8, 2.0)
    pids = _processes(strikes, name)
    if "groups" in strikes.site.missing:
        _stutter(strikes, pids, seconds)
    else:
        strikes.site.groups[name].limit_cpu(0.1)
        time.sleep(seconds)
        strikes.site.groups[name].limit_cpu(None)
    strikes.note(kind, at, None if name == "manager" else frozenset((*pids, *_processes(strikes, name))))


def _stutter(strikes: Strikes, pids: list[int], seconds: float) -> None:
    """Stop processes nine tenths of the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        strikes.site.send(pids, signal.SIGSTOP)
        time.sleep(0.09)
        strikes.site.send(pids, signal.SIGCONT)
        time.sleep(0.01)


def _processes(strikes: Strikes, name: str) -> list[int]:
    manager = strikes.site.service.manager
    assert manager is not None
    return [manager.pid] if name == "manager" else strikes.site.tree(name)


# --- time, formats, copies ----------------------------------------------------------------------------


def jump(strikes: Strikes, kind: str) -> None:
    """Run the manager with a time of day that jumps by hours, back and forth; monotonic time does not.

    It is stopped and started for that, and both are noted, because leases are lost as in a kill. The jumps
    themselves excuse nothing.
    """
    site = strikes.site
    site.clock.jump(strikes.random.choice(_JUMPS))
    restart(strikes, environment=site.clock.environment)
    at = time.monotonic()
    for _ in range(3):
        time.sleep(strikes.random.uniform(0.2, 0.6))
        site.clock.jump(strikes.random.choice(_JUMPS))
    time.sleep(0.3)
    strikes.note(kind, at)
    restart(strikes)


def restart(
    strikes: Strikes, *, environment: Mapping[str, str] | None = None, flags: tuple[str, ...] = ()
) -> None:
    """Stop the manager with SIGTERM, and start it."""
    at = time.monotonic()
    strikes.site.service.stop_manager()
    strikes.site.start_manager(environment=environment, flags=flags)
    strikes.faults.append(Fault("manager restarted", at, time.monotonic(), None, injected=False))


def meet_old_journal(strikes: Strikes, kind: str) -> None:
    """Kill the manager, and give it the journal in the form of a release before checksums and marks.

    It is started once more in order, because the update of the file takes memory that SQLite does not free.
    """
    at = time.monotonic()
    strikes.site.service.kill_manager()
    age(strikes.site.service.journal)
    strikes.note(kind, at, None)
    strikes.site.start_manager()
    restart(strikes)


def back_up(strikes: Strikes, kind: str) -> None:
    """Let the manager copy its journal under load; it also checks the copy."""
    at, service = time.monotonic(), strikes.site.service
    code = strikes.site.svc("journal", "backup", timeout=120)
    if code:
        strikes.violations.append(f"I13: a backup under load ended with code {code}")
    strikes.note(kind, at)
    for made in service.folder.glob("*.backups"):
        shutil.rmtree(made)


#: Further faults, and the feature of the machine that each needs: an attribute of the site.
SCARCITY: dict[str, tuple[Callable[[Strikes, str], None], str]] = {
    "F10 partition, both ways": (partition, "network"),
    "F10 partition, manager unheard": (partition, "network"),
    "F10 partition, worker unheard": (partition, "network"),
    "F12 lose packets": (lose_packets, "network"),
    "F13 slow, silent and hostile peers": (peers, ""),
    "F14 manager out of descriptors": (take_descriptors, ""),
    "F14 worker out of processes": (take_processes, "groups"),
    "F15 time of day jumps by hours": (jump, "clock"),
    "F16 manager out of memory": (starve_manager, "groups"),
    "F19 journal of an older format": (meet_old_journal, ""),
    "F20 a tenth of a CPU: a worker": (squeeze, ""),
    "F20 a tenth of a CPU: the manager": (squeeze, ""),
    "F23 backup under load": (back_up, ""),
}
