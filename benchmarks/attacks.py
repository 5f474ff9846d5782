"""Attacks that may make a manager slow or large, by peers without a key or with a key of a low role.

An attack is a function that takes a `Target` and returns the bytes of the largest message that it sent. In
addition to the attacks written here and in `full_frames`, there is one for each command that roles other than
`admin` may send: a frame with as many of the shortest such commands as it may have.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast, get_args

import msgspec

from benchmarks.attack_target import (
    ENVELOPE_BYTES,
    FIRST,
    TASK,
    Attack,
    Target,
    most,
    parts,
    put,
    repeated,
    send,
    submits,
)  # fmt: skip
from benchmarks.full_frames import FULL_FRAMES
from benchmarks.line import Line, frame
from svc import wire
from svc.domain import commands as c
from svc.domain.field_bounds import FRAME_COMMANDS_MAX
from svc.domain.job import SHELL, ErrorInfo, NewChunk, Terms
from svc.domain.roles import Role
from svc.server.roles import RIGHTS

#: Seconds to wait for a job: a manager that has just started hands out none for some seconds.
_PATIENCE = 30.0
_ERROR = ErrorInfo("E", "")


# --- frames -------------------------------------------------------------------------------------------


def _pings(target: Target) -> int:
    return send(target, "submit", repeated(c.Ping(), target.large, target.large))


def _tiny_chunks(target: Target) -> int:
    return send(target, "submit", submits(target.small, partial(_tiny, 0)))


def _many_tiny_chunks(target: Target) -> int:
    """Send forty frames of chunks, so that all that has an entry for each chunk grows several times."""

    def frames() -> Iterator[bytes]:
        for place in range(40):
            first = place << 18
            yield submits(target.small, partial(_tiny, first))

    return send(target, "submit", *frames())


def _tiny(first: int, number: int, task: str = TASK) -> NewChunk:
    # Every other number, so that no chunk continues the one before.
    return NewChunk(2 * (first + number), Terms(task), [b""])


def _shell(target: Target) -> int:
    """Send as many submits of a shell command as a frame may have: no other key of a low role may."""
    command = c.Submit("o", [_tiny(0, 0, SHELL)])
    return send(target, "shell", *[repeated(command, target.small)] * 4)


def _shell_chunks(target: Target) -> int:
    return send(target, "shell", submits(target.small, partial(_tiny, 0, task=SHELL)))


def _distinct_queues(target: Target) -> int:
    return send(target, "submit", submits(target.small, lambda n: NewChunk(n, Terms(TASK, f"x{n}"), [b""])))


def _keyed(target: Target) -> int:
    return send(
        target, "submit", submits(target.small, lambda n: NewChunk(n, Terms(TASK), [b""], 0.0, f"k{n}"))
    )


def _bodies(target: Target, role: str = "submit", task: str = TASK) -> int:
    count = (target.small - ENVELOPE_BYTES) // 2 * 99 // 100
    limit = most(NewChunk, "bodies")
    bodies = [(first, [b""] * min(limit, count - first)) for first in range(0, count, limit)]
    made = [c.Submit("bodies", [NewChunk(first, Terms(task), some)]) for first, some in bodies]
    return send(target, role, frame(made))


def _many_bodies(target: Target) -> int:
    """Send one chunk of more jobs than a chunk may have."""
    count = target.large // 2
    bodies = msgspec.Raw(b"\xdd" + count.to_bytes(4) + b"\xc4\x00" * count)
    chunk = NewChunk(0, Terms(TASK), cast("list[bytes]", bodies))
    return send(target, "submit", frame([c.Submit("bodies", [chunk])]))


def _names(target: Target) -> int:
    names = (
        chr(ord("A") + number) * (target.small - ENVELOPE_BYTES)
        for number in range(min(57, target.large // target.small))
    )
    return send(
        target, "submit", *(frame([c.Submit("o", [NewChunk(0, Terms(TASK, name), [b""])])]) for name in names)
    )


def _empty_maps(target: Target) -> int:
    count = target.large // 4
    body = b"\x92\xdd" + count.to_bytes(4) + b"\x80" * count + b"\x80"
    sent = send(
        target, "submit", frame([c.Submit("maps", [NewChunk(0, Terms(TASK, priority=FIRST), [body])])])
    )
    with target.line("work") as line, contextlib.suppress(EOFError, OSError):
        line.call("tasks", "get", True, _PATIENCE)
    return sent


def _opcodes(target: Target) -> int:
    return send(target, "submit", put([1] * (target.small * 99 // 200)))


def _many_opcodes(target: Target) -> int:
    return send(target, "submit", put([None] * target.large))


def _surrogates(target: Target) -> int:
    return send(target, "submit", put("\ud800" * (target.large // 3)))


def _long_header(target: Target) -> int:
    with target.line("submit") as line, contextlib.suppress(EOFError, OSError):
        line.send_raw(wire.HEADER.pack(-1) + wire.LONG_HEADER.pack(target.large) + bytes(target.large))
        line.receive()
    return target.large


def _feeds(target: Target) -> int:
    return send(target, "submit", frame([c.Feed("fed")] * 1000))


def _one_result(target: Target) -> int:
    return send(target, "submit", frame([c.Await(["fed-0"] * 2200)]))


def _awaits(target: Target) -> int:
    """Let sixty requests wait for ten thousand jobs each, while a consumer ends one job after the other."""
    ids = [f"deep-{number}" for number in range(min(target.waiting, 10_000))]
    waiting = frame([c.Await(ids, 30.0)])
    with target.line("submit") as line, target.line("work") as consumer:
        for _ in range(60):
            line.send(waiting)
        consumer.ask([c.Hello(1, "consumer", "w-1", "w", tasks=[TASK], queues=["deep"])])
        for _ in range(20):
            (grant,) = consumer.ask([c.Lease(1, _PATIENCE)])
            for each in grant.deliveries:
                consumer.ask([c.Ack(each.token, each.first, [b"r"], [0.0])])
    return len(waiting)


def _leases(target: Target) -> int:
    with target.line("work") as line:
        line.ask([c.Hello(1, "consumer", "w-1", "w", tasks=[TASK])])
        for _ in range(8):
            line.ask([c.Lease(256, _PATIENCE)])
    return 0


def _lease_frame(target: Target) -> int:
    with target.line("work") as line, contextlib.suppress(EOFError, OSError):
        line.ask([c.Hello(1, "consumer", "w-1", "w", tasks=[TASK])])
        line.ask([c.Lease(256, _PATIENCE)])
        line.ask([c.Lease(256)] * 1000)
    return 0


def _lost_worker(target: Target) -> int:
    """Let eight consumers of a worker go at once, each with as many leases as it may have."""
    lines = [Line(target.endpoint, target.keys["work"]) for _ in range(8)]
    for number, line in enumerate(lines):
        line.ask([c.Hello(1, "consumer", f"w-{number}", "w", tasks=[TASK])])
        line.ask([c.Lease(256, _PATIENCE)])
        for _ in range(20):
            line.ask([c.Lease(256)])
    for line in lines:
        line.close()
    return 0


def _parked_leases(target: Target) -> int:
    """Let forty requests wait for jobs that become ready at once, each with a priority of its own."""
    lines = [Line(target.endpoint, target.keys["work"]) for _ in range(40)]
    for number, line in enumerate(lines):
        line.ask([c.Hello(1, "consumer", f"w-{number}", "w", tasks=[TASK], queues=["fed"])])
    lines[0].ask([c.Lease(1, 4.0)])  # until a manager that has just started hands out jobs
    for line in lines:
        line.send(frame([c.Lease(256, 8.0)]))

    def delayed(number: int) -> NewChunk:
        return NewChunk(2 * number, Terms(TASK, "fed", priority=number), [b""], 2.0)

    size = send(target, "submit", submits(target.small // 2, delayed))
    for line in lines:
        line.answer()
        line.close()
    return size


def _tasks(target: Target) -> int:
    count = min(most(c.Hello, "tasks"), target.small // 16)
    names = [f"m:f{number:0{target.small // count - 8}}" for number in range(count)]
    return send(target, "work", frame([c.Hello(1, "consumer", "w-1", "w", tasks=names)]))


def _held(target: Target) -> int:
    held = [
        c.Held(number, "deep", number, 1)
        for number in range(1, min(most(c.Hello, "held"), target.small // 16) + 1)
    ]
    return send(target, "work", frame([c.Hello(1, "consumer", "w-1", "w", tasks=[TASK], held=held)]))


def _stats(target: Target) -> int:
    return send(target, "read", *[frame([c.Stats()] * 20)] * 4)


def _expositions(target: Target) -> int:
    return send(target, "read", frame([c.Exposition()] * 20))


def _scrapes(target: Target) -> int:
    """Let sixteen scrapers without a key ask at once, four times each."""
    url = f"http://{target.http}/metrics"

    def scrape() -> None:
        for _ in range(4):
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(url, timeout=60) as page,
            ):
                page.read()

    threads = [threading.Thread(target=scrape) for _ in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return 0


def _lists(target: Target) -> int:
    return send(target, "read", frame([c.List("dead")] * 200))


def _long_list(target: Target) -> int:
    return send(target, "read", *[frame([c.List(limit=10_000)])] * 4)


def _ids(target: Target) -> int:
    ids = ["deep-1"] * ((target.small - 2 * ENVELOPE_BYTES) // 7)
    return send(target, "read", frame([c.Get(part) for part in parts(ids, most(c.Get, "ids"))]))


# --- connections ----------------------------------------------------------------------------------------


def _half_open(target: Target) -> int:
    _connect_many(target, lambda: socket.create_connection(target.endpoint, timeout=5))
    return 0


def _full(target: Target) -> int:
    _connect_many(target, lambda: Line(target.endpoint, target.keys["submit"]))
    return 0


def _unfinished(target: Target) -> int:
    def come() -> Line:
        line = Line(target.endpoint, target.keys["submit"])
        line.send_raw(wire.HEADER.pack(2 * target.small) + bytes(target.small))
        return line

    _connect_many(target, come)
    return target.small


def _unread(target: Target) -> int:
    asked = frame([c.List(limit=10_000)])

    def come() -> Line:
        line = Line(target.endpoint, target.keys["read"])
        for _ in range(8):
            line.send(asked)
        return line

    _connect_many(target, come, target.peers // 8)
    return len(asked)


def _connect_many(target: Target, come: Callable[[], Any], peers: int = 0) -> None:
    """Connect *peers* peers, or `Target.peers` if that is 0; ignore those that are refused or cut off."""
    inside = []
    try:
        for _ in range(peers or target.peers):
            with contextlib.suppress(EOFError, OSError):
                inside.append(come())
    finally:
        for each in inside:
            with contextlib.suppress(OSError):
                each.close()


def _cancels(target: Target) -> int:
    ids = [f"deep-{number}" for number in range(min(target.waiting, target.small // 12))]
    return send(target, "admin", frame([c.Cancel(part) for part in parts(ids, most(c.Cancel, "ids"))]))


def _of(kind: type[c.Command]) -> tuple[str, Attack] | None:
    """Return the attack with the shortest commands of a kind, by the lowest role that may send it."""
    tag = str(kind.__struct_config__.tag)
    roles = [role for role in (Role.SUBMIT, Role.WORK, Role.READ) if role in RIGHTS.get(tag, ())]
    if not roles:
        return None
    shortest = {"origin": "o", "error": _ERROR, "version": 1, "role": "client", "consumer": "w"}
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.required:
            values[field.name] = shortest.get(field.name, [] if "list" in str(field.type) else 0)
    role = str(roles[0])
    return f"{FRAME_COMMANDS_MAX:,} of {tag!r} in a frame, by {role}", lambda target: send(
        target, role, *[repeated(kind(**values), target.small)] * 4
    )


#: The attacks in the order of the table. The name has the lowest role that may make the attack.
ATTACKS: dict[str, Attack] = {
    "57 MB of pings in a frame, by submit": _pings,
    "1 MiB of chunks of one job, by submit": _tiny_chunks,
    "40 frames of 1 MiB of chunks of one job, by submit": _many_tiny_chunks,
    "1 MiB of chunks for distinct queues, by submit": _distinct_queues,
    "1 MiB of chunks with keys, by submit": _keyed,
    "1 MiB of empty jobs in chunks of 100,000, by submit": _bodies,
    "57 MB of empty jobs in a chunk, by submit": _many_bodies,
    "57 names of 1 MiB, refused, by submit": _names,
    "14 M empty maps, submitted and got, by submit and work": _empty_maps,
    "1 MiB of pickle with 500,000 opcodes, by submit": _opcodes,
    "57 MB of pickle, by submit": _many_opcodes,
    "57 MB of lone surrogates, by submit": _surrogates,
    "57 MB behind a long header, by submit": _long_header,
    "1,000 feeds of 8 MiB of results, by submit": _feeds,
    "one result of 256 KiB awaited 2,200 times, by submit": _one_result,
    "60 awaits of 10,000 jobs, and acks, by submit and work": _awaits,
    "leases of 256 over all priorities, by work": _leases,
    "1,000 leases of 256 in a frame, by work": _lease_frame,
    "16,000 leases of a lost worker, by work": _lost_worker,
    "40 requests for jobs that become ready at once, by submit and work": _parked_leases,
    "1 MiB of tasks in a hello, by work": _tasks,
    "1 MiB of held leases in a hello, by work": _held,
    "20 stats in a frame, by read": _stats,
    "20 expositions in a frame, by read": _expositions,
    "16 scrapers, without a key": _scrapes,
    "200 lists of a rare state, by read": _lists,
    "lists of 10,000 jobs, by read": _long_list,
    "1 MiB of ids to get, by read": _ids,
    "1,024 half-open connections, without a key": _half_open,
    "1,024 connections, by submit": _full,
    "1,024 connections, 1 MiB of a message on each, by submit": _unfinished,
    "128 connections that read no answer, by read": _unread,
    **dict(filter(None, map(_of, get_args(c.AnyCommand)))),
    **FULL_FRAMES,
    f"{FRAME_COMMANDS_MAX:,} submits of a shell command in a frame, by shell": _shell,
    "1 MiB of chunks of one shell command, by shell": _shell_chunks,
    "1 MiB of shell commands in chunks of 100,000, by shell": partial(_bodies, role="shell", task=SHELL),
    "80,000 jobs cancelled in a frame, by admin": _cancels,
}
