"""Frames of a MiB that are as full as a command's declaration allows: every list, text and value of it.

`attacks` repeats the shortest command of each kind. The frames here have few commands with as many elements
as possible, and reports on jobs that the attacker does hold.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, get_args

import msgspec
from msgspec import inspect

from benchmarks.attack_target import ENVELOPE_BYTES, TASK, Attack, Target, parts, repeated
from benchmarks.line import Line, frame
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.field_bounds import FRAME_COMMANDS_MAX
from svc.domain.job import ErrorInfo
from svc.domain.roles import Role
from svc.server.roles import RIGHTS

#: A number that takes as many bytes on the wire as the largest one that is sent.
_WIDE = 1 << 18
#: Bytes of an error's traceback, and of a piece of bytes: the frame then has sixteen commands.
_LONG = 64_000
#: Seconds to wait for a job: a manager that has just started hands out none for some seconds.
_PATIENCE = 30.0
#: Requests for jobs; each gets 256 leases, as all jobs have priorities of their own.
_REQUESTS = 8


#: How to make the smallest value of a declared type; other numbers give other texts and numbers.
_SMALLEST: dict[type[inspect.Type], Callable[[Any, int], Any]] = {
    inspect.UnionType: lambda of, number: value(of.types[0], number),
    inspect.StructType: lambda of, number: of.cls(
        **{field.name: value(field.type, number) for field in of.fields if field.required}
    ),
    inspect.EnumType: lambda of, number: next(iter(of.cls)),
    inspect.StrType: lambda of, number: f"deep-{number}",
    inspect.IntType: lambda of, number: number,
    inspect.FloatType: lambda of, number: 0.0,
    inspect.BoolType: lambda of, number: False,
    inspect.BytesType: lambda of, number: b"",
    inspect.ListType: lambda of, number: [],
    inspect.DictType: lambda of, number: {},
}


def value(of: inspect.Type, number: int) -> Any:
    """Return the smallest value of a declared type."""
    return _SMALLEST[type(of)](of, number)


def fullest(kind: type[c.Command], size: int) -> c.Command:
    """Return a command of *kind* with *size* bytes, or with as many elements and bytes as it may have."""
    values: dict[str, Any] = {}
    lists: dict[str, inspect.ListType] = {}
    for field in inspect.type_info(kind).fields:  # type: ignore[attr-defined]  # a struct has fields
        of = field.type.types[0] if isinstance(field.type, inspect.UnionType) else field.type
        if isinstance(of, inspect.ListType):
            lists[field.name] = of
        elif isinstance(of, inspect.BytesType):
            values[field.name] = bytes(min(of.max_length or _LONG, _LONG))
        elif isinstance(of, inspect.StructType) and of.cls is ErrorInfo:
            values[field.name] = ErrorInfo("E", "m" * 200, "t" * _LONG)
        elif field.required:
            values[field.name] = value(of, 1)
    one = sum(len(msgspec.msgpack.encode(value(of.item_type, _WIDE))) for of in lists.values())
    for name, of in lists.items():
        count = min(of.max_length or size, (size - 2 * ENVELOPE_BYTES) // one)
        values[name] = [value(of.item_type, number) for number in range(count)]
    return kind(**values)


def _of(kind: type[c.Command]) -> tuple[str, Attack] | None:
    """Return the attack with the fullest commands of a kind, if they differ from the shortest ones."""
    tag = str(kind.__struct_config__.tag)
    roles = [role for role in (Role.SUBMIT, Role.WORK, Role.READ) if role in RIGHTS.get(tag, ())]
    if not roles or len(msgspec.msgpack.encode(fullest(kind, _WIDE))) < ENVELOPE_BYTES:
        return None

    def attack(target: Target) -> int:
        message = repeated(fullest(kind, target.small), target.small)
        with target.line(str(roles[0])) as line, contextlib.suppress(EOFError, OSError):
            if roles[0] is Role.WORK:
                line.ask([c.Hello(1, "worker", "w")])
            for _ in range(4):
                line.send(message)
                line.receive()
        return len(message)

    return f"the fullest {tag!r} in a frame, by {roles[0]}", attack


@contextlib.contextmanager
def _holder(target: Target) -> Iterator[tuple[Line, list[r.Delivery]]]:
    """Connect as a consumer that holds two thousand jobs."""
    with target.line("work") as line:
        line.ask([c.Hello(1, "consumer", "w-1", "w", tasks=[TASK])])
        held: list[r.Delivery] = []
        for _ in range(_REQUESTS):
            (grant,) = line.ask([c.Lease(256, _PATIENCE)])
            held += grant.deliveries
        yield line, held


def _send(line: Line, target: Target, commands: list[c.Command]) -> int:
    """Send *commands* in frames of a MiB at most."""
    size = max(len(msgspec.msgpack.encode(each)) for each in commands)
    most = 0
    for part in parts(commands, min(FRAME_COMMANDS_MAX, max(1, (target.small - ENVELOPE_BYTES) // size))):
        message = frame(part)
        line.send(message)
        line.receive()
        most = max(most, len(message))
    return most


def _reports(target: Target) -> int:
    with _holder(target) as (line, held):
        reports = [c.JobProgress(each.token, each.first, 1.0, 2.0, "n" * 200) for each in held]
        return max(_send(line, target, [c.TellProgress(part)]) for part in parts(reports, 1000))


def _checkpoints(target: Target) -> int:
    with _holder(target) as (line, held):
        return _send(line, target, [c.Checkpoint(each.token, each.first, bytes(_LONG)) for each in held])


def _failures(target: Target) -> int:
    with _holder(target) as (line, held):
        error = ErrorInfo("E", "m" * 200, "t" * _LONG)
        return _send(line, target, [c.Nack(each.token, each.first, error) for each in held])


def _results(target: Target) -> int:
    with _holder(target) as (line, held):
        return _send(line, target, [c.Ack(each.token, each.first, [b"r"], [0.0]) for each in held])


#: The attacks in the order of the table.
FULL_FRAMES: dict[str, Attack] = {
    "2,000 reports of progress with notes, by work": _reports,
    "2,000 checkpoints of 64 kB, by work": _checkpoints,
    "2,000 failures with tracebacks of 64 kB, by work": _failures,
    "2,000 results, each in a command, by work": _results,
    **dict(filter(None, map(_of, get_args(c.AnyCommand)))),
}
