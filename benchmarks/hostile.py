"""Attacks on a manager with many queues, priorities and jobs: how long others wait, and how large it gets.

Each attack is made on a manager that has just started on the same journal. An operator's connection pings
meanwhile. The bound of a turn is 50 ms of processor time, plus 5 ms for each MiB of a message after the
first, on a machine that is not slow: each figure of a turn is divided by how slow the machine is just then.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.attack_target import MEBIBYTE, RESULT_BYTES, RESULTS, TASK, Target
from benchmarks.attacks import ATTACKS
from benchmarks.line import Line
from benchmarks.processes import peak_bytes, slowness
from benchmarks.systems import Service, end, environment
from benchmarks.watch import watched
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.field_bounds import SUBMIT_CHUNKS_MAX, SUBMIT_JOBS_MAX
from svc.domain.job import NewChunk, Terms

#: Seconds of processor time that a turn may take, and further ones for each MiB of a message after the first.
TURN_SECONDS = 0.050
MEBIBYTE_SECONDS = 0.005
#: Bytes that the manager may have resident.
PEAK_BYTES_MAX = 512 * MEBIBYTE
_CALL = 10_000
#: Queues that `Sizes.queues` includes: the default one, `deep` and `fed`.
_NAMED_QUEUES = 3


@dataclass(frozen=True)
class Sizes:
    """The amounts of waiting jobs and of sent data, the number of attacks, and the seconds after each one."""

    waiting: int
    priorities: int
    queues: int
    large: int
    small: int
    peers: int
    attacks: int
    settle: float


@dataclass(frozen=True)
class Seen:
    """The figures of one attack.

    Attributes:
        name: the attack.
        bound: seconds of processor time that a turn may take under it.
        turn: the most seconds of processor time that one turn took, by the manager's own count.
        slow: how much longer the machine took for a fixed computation than one that is not slow.
        cpu: the most seconds of processor time between two answers to the operator: of one turn or several.
        gap: the most seconds that the operator waited for an answer.
        peak: the most bytes that the manager had resident.
        served: whether the manager kept running, and served the operator all the time.
    """

    name: str
    bound: float
    turn: float
    slow: float
    cpu: float
    gap: float
    peak: int
    served: bool

    @property
    def within(self) -> bool:
        """Whether the manager served, and neither its turns nor its memory were over their bounds."""
        return self.served and self.turn / self.slow <= self.bound and self.peak <= PEAK_BYTES_MAX


def measure(durability: str, sizes: Sizes) -> Iterator[Seen]:
    """Yield the figures of each attack on a manager that was filled according to *sizes*."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="svc-keys-")))
        keys = _keys(folder / "keys")
        service = stack.enter_context(Service(durability, "--role-keys", str(folder / "keys"), consumers=0))
        line = Line(service.endpoint, keys["admin"])
        _fill(line, sizes)
        line.close()
        end(service.manager)
        pristine = folder / "pristine"
        shutil.copytree(service.folder, pristine)
        for name in list(ATTACKS)[:: max(1, len(ATTACKS) // sizes.attacks)]:
            print(name, file=sys.stderr)
            _restore(pristine, service.folder)
            yield _under(service, keys, sizes, name)


def _under(service: Service, keys: dict[str, bytes], sizes: Sizes, name: str) -> Seen:
    service.start_manager()
    manager = service.manager
    target = Target(
        service.endpoint, service.http, keys, sizes.large, sizes.small, sizes.peers, sizes.waiting
    )
    size, slow = 0, slowness()
    with watched(service.endpoint, keys["admin"], manager.pid) as seen:
        with contextlib.suppress(EOFError, OSError):  # the manager may cut off the attacker
            size = ATTACKS[name](target)
        time.sleep(sizes.settle)
    peak, lives = peak_bytes(manager.pid), manager.poll() is None
    turn = most_processor_seconds(service, keys["admin"]) if lives else math.inf
    manager.kill()
    manager.wait()
    slow = max(slow, slowness())
    return Seen(name, bound(size), turn, slow, seen.cpu, seen.gap, peak, lives and seen.served)


def most_processor_seconds(service: Service, authkey: bytes) -> float:
    """Return the most processor time that a turn of the manager has taken since its start."""
    line = Line(service.endpoint, authkey)
    (told,) = line.ask([c.Exposition()])
    line.close()
    name = "svc_manager_longest_turn_processor_seconds{"
    return next(float(each.rpartition(" ")[2]) for each in told.text.splitlines() if each.startswith(name))


def _restore(pristine: Path, folder: Path) -> None:
    """Replace the journal in *folder*, and the files beside it, by those in *pristine*."""
    for path in folder.glob("journal*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.copytree(pristine, folder, dirs_exist_ok=True)


def bound(size: int) -> float:
    """Return the seconds of processor time that a turn may take for a message of *size* bytes."""
    return TURN_SECONDS + MEBIBYTE_SECONDS * max(0, math.ceil(size / MEBIBYTE) - 1)


def _keys(folder: Path) -> dict[str, bytes]:
    """Make a key for each role in *folder*, as an operator does; return the keys."""
    subprocess.run(
        [sys.executable, "-m", "svc", "auth", "generate", "--all", str(folder)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return {path.stem: path.read_bytes().strip() for path in folder.glob("*.key")}


def _fill(line: Line, sizes: Sizes) -> None:
    """Submit jobs to a deep queue, with many priorities and to many queues; end some with results."""
    _submit(line, "fed", [NewChunk(0, Terms(TASK, "fed"), [b""] * RESULTS)])
    line.ask([c.Hello(1, "consumer", "filler-1", "filler", tasks=[TASK], queues=["fed"])])
    (grant,) = line.ask([c.Lease(RESULTS)])
    for each in grant.deliveries:
        count = len(each.bodies)
        line.ask([c.Ack(each.token, each.first, [bytes(RESULT_BYTES)] * count, [0.0] * count)])
    line.ask([c.Leave()])
    deep = Terms(TASK, "deep")
    bulk = [NewChunk(first, deep, [b""] * _CALL) for first in range(0, sizes.waiting, _CALL)]
    _submit(line, "deep", bulk)
    # Every other number, since jobs with consecutive numbers would be joined to one chunk.
    _submit(line, "lanes", [NewChunk(2 * n, Terms(TASK, priority=n), [b""]) for n in range(sizes.priorities)])
    others = sizes.queues - _NAMED_QUEUES
    _submit(line, "wide", [NewChunk(2 * n, Terms(TASK, f"q{n}"), [b""]) for n in range(others)])


def _submit(line: Line, origin: str, chunks: list[NewChunk]) -> None:
    step = min(SUBMIT_CHUNKS_MAX, SUBMIT_JOBS_MAX // len(chunks[0].bodies))
    for start in range(0, len(chunks), step):
        (accepted,) = line.ask([c.Submit(origin, chunks[start : start + step])])
        if not isinstance(accepted, r.Accepted) or accepted.notes:
            raise RuntimeError(f"the manager did not take the jobs to begin with: {accepted!r:.300}")
