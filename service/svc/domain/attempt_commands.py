"""The commands about attempts that go on: how far they are, data for the next one, and partial results."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from svc.domain import field_bounds as b
from svc.domain.command import Command
from svc.domain.roles import Role, Roles


class JobProgress(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far job `number` under the lease `token` is; `total` is None if its task does not know it."""

    token: b.Counter
    number: b.Number
    done: b.Amount
    total: b.Amount | None = None
    note: b.ProgressNote = ""


class TellProgress(Command, frozen=True, tag="tell_progress"):
    """Tell how far jobs are that run now: not durable, and only the last report of a job counts.

    The answer has the number of reports that were taken: those whose token is in force.
    """

    roles: ClassVar[Roles] = (Role.WORK,)

    reports: Annotated[list[JobProgress], Meta(max_length=b.HELD_MAX)]


class Checkpoint(Command, frozen=True, tag="checkpoint"):
    """Keep data of a job that runs for its next attempt; only the last checkpoint of a job counts."""

    roles: ClassVar[Roles] = (Role.WORK,)

    token: b.Counter
    number: b.Number
    data: b.CheckpointData


class Yield(Command, frozen=True, tag="yield"):
    """Record partial results of a job that runs: its `values` from number `first` on, in order.

    Those that are recorded already change nothing. The answer has the number that are recorded in all.
    """

    roles: ClassVar[Roles] = (Role.WORK,)

    token: b.Counter
    number: b.Number
    first: b.Number
    values: b.YieldedValues
