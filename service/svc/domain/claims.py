"""The leases that a worker names after a restart of the manager, which knows none: they were not recorded."""

from __future__ import annotations

import msgspec

from svc.domain import field_bounds as b


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A lease that a consumer still holds when it reconnects: jobs `first` … `first + count - 1`."""

    token: b.Counter
    origin: b.Text
    first: b.Number
    count: b.Number


class ClaimedJob(msgspec.Struct, frozen=True, array_like=True):
    """The job that a consumer executes, as its supervisor sees it.

    A task in C that keeps the interpreter's lock keeps its consumer from saying hello.
    """

    consumer: b.Label
    token: b.Counter
    origin: b.Text
    number: b.Number
