"""Makes up the steps of a story while it runs, from the current state.

The commands and their fields come from the declarations (`commands.COMMANDS`, the other commands that
`apply` serves, and `plain.EXPOSED`): a new command is fuzzed without a change here. The tables below only
make usual values more frequent, so that stories reach deep states.
"""

from __future__ import annotations

import inspect as signatures
import math
import pickle
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

from msgspec import inspect

from svc.domain import commands as c
from svc.domain.job import DEFAULT_QUEUE, RESULTS_QUEUE, SHELL
from svc.domain.lifecycle import JobState
from svc.domain.names import TYPED
from svc.domain.roles import Role
from svc.server.plain import EXPOSED
from tests.fuzz import steps as s
from tests.fuzz.scene import Scene
from tests.fuzz.values import ODD_FLOATS, ODD_INTEGERS, ODD_TEXTS, Usual, Values, encoded_bytes, swarm

_WIRE = tuple(kind for kind in c.COMMANDS if kind.on_wire)
#: Commands that reach the host only from the server for plain clients, which has checked their values.
_INSIDE = tuple(kind for kind in c.COMMANDS if not kind.on_wire)
_KINDS: dict[type[c.Command], inspect.Type] = {each: inspect.type_info(each) for each in (*_WIRE, *_INSIDE)}
_CALLS = [(typeid, name) for typeid, names in EXPOSED.items() for name in names if name != "call"]
#: Calls by frequency: put, get and submit have the most ways to fail.
_CALL_CHOICES = [each for each in _CALLS for _ in range(3 if each[1] in ("put", "get", "submit") else 1)]
#: The frequency of a command, if it is not 1.
_WEIGHTS: dict[type[c.Command], int] = {
    c.Submit: 7, c.Lease: 8, c.Ack: 7, c.Nack: 4, c.Extend: 2, c.Feed: 3, c.Await: 2, c.Cancel: 2,
    c.Requeue: 2, c.Purge: 2, c.Release: 2, c.Hello: 3, c.Drain: 1, c.Resume: 2, c.StorePiece: 3,
    c.StoreResultPiece: 2,
}  # fmt: skip
_CHOICES = [each for each in _WIRE for _ in range(_WEIGHTS.get(each, 1))]
#: The usual roles of a member that sends a command.
_SENDERS: dict[type[c.Command], tuple[str, ...]] = {
    c.Lease: ("consumer", "plain"),
    c.Extend: ("worker",),
    c.Lost: ("worker",),
    c.Recall: ("worker",),
}
#: The usual lengths of its lists.
_SIZES: dict[type[c.Command], tuple[int, ...]] = {c.Submit: (1, 1, 1, 2)}
_ABOUT_LEASES = (c.Ack, c.Nack, c.Release, c.Checkpoint, c.Yield, c.StoreResultPiece, c.FetchArgument)
_PEERS_MAX = 9
#: Roles by frequency; each arrives.
_ROLES = (*Role, Role.WORK, Role.ADMIN)
_ORIGINS = ("a", "b", "c")
_TASKS = ("m:f", "m:g")
_QUEUES = (DEFAULT_QUEUE, DEFAULT_QUEUE, "q")
_KEYS = ("", "", "", "k1", "k2")
_WORKERS = ("w1", "w2")
_ITEM_FIELDS = (
    "queue",
    "priority",
    "delay",
    "key",
    "retries",
    "backoff",
    "timeout",
    "args",
    "kwargs",
    "soft_timeout",
    "max_rss",
)
#: The share of commands without an odd field, and the share of odd fields in the others.
_SOBER = 0.55
_ODDITY = 0.35
#: The share of frames that repeat their commands many times.
_SWARMS = 0.002


class Author:
    """Makes up one step after the other for a scene."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        """Write for *scene*, with the random numbers of *rng*."""
        self._scene = scene
        self._rng = rng
        self._values = Values(rng)
        self._planned: deque[s.Step] = deque()
        self._arrived = 0

    def step(self) -> s.Step:
        """Return the next step."""
        if self._planned:
            return self._planned.popleft()
        chance = self._rng.random()
        if len(self._scene.peers) < 2 or (chance < 0.02 and len(self._scene.peers) < _PEERS_MAX):
            return self._arrival()
        if chance < 0.58:
            return self._frame()
        if chance < 0.72:
            return self._call()
        if chance < 0.84:
            return s.Turn(early=self._rng.random() < 0.2)
        if chance < 0.96:
            return s.Pass(self._seconds())
        return self._event()

    def _seconds(self) -> float:
        scale = self._rng.random()
        if scale < 0.9:
            return self._rng.choice((0.01, 0.1, 0.3, 1.0))
        return self._rng.choice((4.0, 6.0, 40.0)) if scale < 0.995 else self._rng.choice((400.0, 1e5, 1e7))

    def _event(self) -> s.Step:
        """Return a step that is rare."""
        choice = self._rng.random()
        if choice < 0.35:
            return s.HangUp(self._rng.choice(list(self._scene.peers)))
        if choice < 0.6:
            return s.Silence()
        if choice < 0.75:
            return s.Review()
        if choice < 0.93:
            broken_off = self._rng.choice((s.Restart, s.Restart, s.Recover))
            return broken_off(self._rng.random() < 0.7)
        return s.Desert()

    # --- arrivals -----------------------------------------------------------------------------------

    def _arrival(self) -> s.Step:
        role = self._rng.choice(_ROLES)
        self._arrived += 1
        number = self._arrived
        if role in (Role.WORK, Role.ADMIN) and self._rng.random() < 0.7:
            worker = self._rng.choice(_WORKERS)
            hello = self._greeting(worker)
            self._planned.append(s.Frame(number, (hello,)))
        return s.Connect(number, role)

    def _greeting(self, worker: str) -> c.Hello:
        """Return the hello of a supervisor or a consumer, which may hold earlier jobs."""
        if self._rng.random() < 0.4:
            return c.Hello(1, "worker", worker, worker, life=self._rng.choice((0, 1, 1, 2)))
        known = self._scene.host.state.leases.values()
        held = [self._held(lease) for lease in known if self._rng.random() < 0.5]
        return c.Hello(
            1, "consumer", f"{worker}-{self._rng.randint(1, 2)}", worker, tasks=list(_TASKS),
            queues=list(set(_QUEUES)) if self._rng.random() < 0.5 else [], held=held,
            accept=self._rng.choice((None, ["plain"], ["plain", "pickle"], ["plain", "large"])),
            life=self._rng.choice((0, 1, 1, 2)),
        )  # fmt: skip

    def _held(self, lease: Any) -> c.Held:
        chunk = lease.chunk
        return c.Held(lease.token, chunk.origin, chunk.first + lease.start, lease.stop - lease.start)

    # --- frames -------------------------------------------------------------------------------------

    def _frame(self) -> s.Step:
        count = self._rng.choice((1, 1, 1, 2, 3, 12))
        usual, peer = self._usual()
        kinds = [self._rng.choice(_CHOICES) for _ in range(count)]
        commands = tuple(
            each for each in (self._command(kind, usual) for kind in kinds) if encoded_bytes(each) is not None
        )
        if self._rng.random() < _SWARMS:
            commands = tuple(swarm(commands, self._rng.choice((50, 300))))
        sender = self._sender(kinds[0], peer)
        if not commands:
            return s.Turn()
        if self._rng.random() < 0.15:
            inside = self._rng.random() < 0.3
            return s.Typed(sender, (self._inner(usual),) if inside else commands)
        return s.Frame(sender, commands)

    def _command(self, kind: type[c.Command], usual: Usual) -> c.Command:
        self._values.oddity = 0.0 if self._rng.random() < _SOBER else _ODDITY
        sizes = usual["size"] if kind in _ABOUT_LEASES else _SIZES.get(kind, (0, 1, 1, 1, 2, 3))
        self._values.size = self._rng.choice(sizes)
        command: c.Command = self._values.of(_KINDS[kind], "", usual)
        return command

    def _inner(self, usual: Usual) -> c.Command:
        """Return a command in the form in which the server for plain clients makes it."""
        self._values.oddity = 0.0
        names = {"queue": (DEFAULT_QUEUE, RESULTS_QUEUE), "wait": (0.0, 0.5, math.inf)}
        command: c.Command = self._values.of(_KINDS[self._rng.choice(_INSIDE)], "", {**usual, **names})
        return command

    def _sender(self, kind: type[c.Command], holder: int | None) -> int:
        peers = self._scene.peers
        if kind in _ABOUT_LEASES and holder is not None and self._rng.random() < 0.85:
            return holder
        wanted = _SENDERS.get(kind)
        fitting = [number for number, peer in peers.items() if wanted and peer.member.role in wanted]
        if fitting and self._rng.random() < 0.85:
            return self._rng.choice(fitting)
        return self._rng.choice(list(peers))

    def _usual(self) -> tuple[Usual, int | None]:
        """Return values that fit the current state, and the peer that holds the lease among them."""
        state, rng = self._scene.host.state, self._rng
        leases, chunks = list(state.leases.values()), list(state.ledger.chunks.values())
        lease = rng.choice(leases) if leases else None
        chunk = lease.chunk if lease is not None and rng.random() < 0.7 else None
        if chunk is None and chunks:
            chunk = rng.choice(chunks)
        index = lease.start if lease is not None and lease.chunk is chunk else 0
        origin = chunk.origin if chunk is not None and rng.random() < 0.6 else rng.choice(_ORIGINS)
        number = chunk.first + index if chunk is not None else 0
        holder = lease.holder if lease is not None else None
        size = min(lease.stop - lease.start, 4) if lease is not None else 1
        worker = rng.choice(_WORKERS)
        usual: dict[str, Sequence[Any]] = {
            "token": (lease.token if lease is not None else 0,),
            "last": (max(state.leases, default=0),),
            "first": (number, number, self._next(origin)),
            "number": (number,),
            "count": (size,),
            "size": (size,),
            "origin": (origin,),
            "id": self._ids(chunks),
            "queue": _QUEUES if rng.random() < 0.8 else ("", "q"),
            "task": (*_TASKS, *_TASKS, SHELL),
            "key": _KEYS,
            "codec": ("plain", "plain", TYPED, "pickle", "large", ""),
            "place": (1, 1, 2),
            "offset": (0, 0, 1, 2),
            "data": (b"a", b"b"),
            "priority": (0, 0, 1, -1),
            "version": (1,),
            "role": ("consumer", "consumer", "worker", "client"),
            "worker": (worker, worker, ""),
            "name": (f"{worker}-1", f"{worker}-2", worker),
            "consumer": (holder.name if holder is not None else f"{worker}-1",),
            "state": ("", *(each.word for each in JobState)),
            "limit": (1, 2, 8, 1000),
            "wait": (0.0, 0.0, 0.5, 5.0),
            "cursor": (0, 0, state.ledger.last_sequence, state.ledger.last_sequence << 24),
            "delay": (0.0, 0.0, 0.0, 0.5),
            "retry_in": (0.0, 0.5),
            "seconds": (0.0, 0.1),
        }
        return usual, self._number_of(holder)

    def _next(self, origin: str) -> int:
        known = self._scene.host.state.ledger.origins.get(origin)
        if known is None:
            return 0
        stops = [stop for _, stop in known.forgotten]
        return max([0, *stops, *(chunk.first + chunk.count for chunk in known.chunks[-1:])])

    def _ids(self, chunks: Sequence[Any]) -> Sequence[str]:
        chosen = [self._rng.choice(chunks) for _ in range(3 if chunks else 0)]
        return [chunk.id(self._rng.randrange(chunk.count)) for chunk in chosen] or ["a-0"]

    def _number_of(self, holder: Any) -> int | None:
        for number, peer in self._scene.peers.items():
            if peer.member is holder:
                return number
        return None

    # --- calls --------------------------------------------------------------------------------------

    def _call(self) -> s.Step:
        typeid, name = self._rng.choice(_CALL_CHOICES)
        method = self._scene.method(typeid, name)
        self._values.oddity = 0.0 if self._rng.random() < _SOBER else _ODDITY
        args: list[Any] = []
        for parameter in list(signatures.signature(method).parameters.values())[2:]:
            if parameter.kind is parameter.VAR_POSITIONAL:
                args += [self._values.plain() for _ in range(self._rng.randrange(2))]
            elif parameter.kind is not parameter.VAR_KEYWORD:
                if parameter.default is not parameter.empty and self._rng.random() < 0.5:
                    break
                args.append(self._argument(parameter.name))
        step = s.Call(self._caller(), typeid, name, tuple(args), {}, self._rng.choice((3, 4, 5)))
        return step if _picklable(step) else s.Turn()

    def _caller(self) -> int:
        admins = [number for number, peer in self._scene.peers.items() if peer.role is Role.ADMIN]
        peers = list(self._scene.peers)
        return self._rng.choice(admins if admins and self._rng.random() < 0.7 else peers)

    def _argument(self, name: str) -> Any:
        if self._values.odd() and name != "item":
            return self._values.plain()
        match name:
            case "item":
                return self._item()
            case "job":
                chunks = list(self._scene.host.state.ledger.chunks.values())
                succeeded = _succeeded(chunks) if self._rng.random() < 0.7 else []
                return self._rng.choice(succeeded or self._ids(chunks))
            case "task":
                return self._rng.choice(_TASKS)
            case "block":
                return self._rng.random() < 0.3
            case "timeout":
                return self._rng.choice((None, 0, 0.5, 5.0, math.nan, math.inf, 1 << 1100))
        return self._values.plain()

    def _item(self) -> Any:
        choice = self._rng.random()
        if choice < 0.1:
            return None
        if choice < 0.4:
            return (self._rng.choice(_TASKS), (self._values.plain(),))
        if choice < 0.7:
            return {"task": self._rng.choice(_TASKS), **self._fields()}
        return self._values.plain()

    def _fields(self) -> dict[str, Any]:
        usual: dict[str, Sequence[Any]] = {
            "queue": _QUEUES, "priority": (0, 1), "delay": (0.0, 0.5), "key": _KEYS, "retries": (0, 3),
            "backoff": (0.0, 1.0), "timeout": (1.0,), "args": ((), (1,)), "kwargs": ({},),
            "soft_timeout": (1.0,), "max_rss": (1 << 30,),
        }  # fmt: skip
        chosen = [name for name in _ITEM_FIELDS if self._rng.random() < 0.3]
        return {
            name: self._odd_like(usual[name][0]) if self._values.odd() else self._rng.choice(usual[name])
            for name in chosen
        }

    def _odd_like(self, usual: object) -> Any:
        """Return an odd value, mostly of the type of the *usual* one."""
        alike = {int: ODD_INTEGERS, float: (*ODD_FLOATS, *ODD_INTEGERS), str: ODD_TEXTS}.get(type(usual))
        return self._rng.choice(alike) if alike and self._rng.random() < 0.7 else self._values.plain()


def _succeeded(chunks: Sequence[Any]) -> list[str]:
    return [chunk.id(start) for chunk in chunks for start, _ in chunk.runs(JobState.SUCCEEDED)]


def _picklable(step: s.Call) -> bool:
    try:
        pickle.dumps((step.args, step.kwds), step.protocol)
    except (ValueError, RecursionError):
        return False
    return True
