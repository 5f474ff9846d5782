"""The commands about large values, which travel in pieces: arguments and results over `--max-job-bytes`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from svc.domain import field_bounds as b
from svc.domain.command import Command
from svc.domain.job import is_put_origin
from svc.domain.roles import Role, Roles


class StorePiece(Command, frozen=True, tag="store_piece"):
    """Store the next piece of a large argument of a job that is not submitted yet.

    The answer has the number of bytes that are stored, which is the offset of the piece to send next; the
    same piece again changes nothing. `size` is that of the whole value, and `place` counts the large
    arguments of the job from 1 on. `under` is as in `Submit`.
    """

    roles: ClassVar[Roles] = (Role.SUBMIT, Role.SHELL)
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType(
        {"store_piece_child": (Role.SUBMIT, Role.SHELL, Role.WORK)}
    )

    origin: b.Text
    number: b.Number
    place: b.LargePlace
    size: b.Number
    offset: b.Number
    data: b.PieceData
    under: b.Counter = 0

    def right(self) -> str:
        """Return `store_piece_child` for the task of a job that runs."""
        return "store_piece_child" if self.under else "store_piece"


class StoreResultPiece(Command, frozen=True, tag="store_result_piece"):
    """Store the next piece of the large result of a job under the token of its lease; as `StorePiece`."""

    roles: ClassVar[Roles] = (Role.WORK,)

    token: b.Counter
    number: b.Number
    size: b.Number
    offset: b.Number
    data: b.PieceData


class FetchArgument(Command, frozen=True, tag="fetch_argument"):
    """Return the piece at `offset` of a large argument of a job, under the token of its lease."""

    roles: ClassVar[Roles] = (Role.WORK,)

    token: b.Counter
    number: b.Number
    place: b.LargePlace
    offset: b.Number


class FetchResult(Command, frozen=True, tag="fetch_result"):
    """Return the piece at `offset` of the large result of a job that succeeded."""

    roles: ClassVar[Roles] = (Role.SUBMIT, Role.SHELL, Role.READ)
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({"get": (Role.READ,)})

    id: b.JobId
    offset: b.Number

    def right(self) -> str:
        """Return `get` if the id of the job can be guessed."""
        return "get" if is_put_origin(self.id.rpartition("-")[0]) else "fetch_result"
