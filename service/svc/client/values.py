"""Large arguments on their way to the manager, and large results on their way from it, piece by piece."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from svc import codec
from svc.client.pending import PendingJob
from svc.client.specs import JobTemplate
from svc.domain import commands as c
from svc.domain.field_bounds import LARGE_ARGUMENTS_MAX
from svc.errors import CodecError, JobTooLarge
from svc.large import (
    File,
    FileBytes,
    Kind,
    LargeReference,
    may_be_large,
    pieces_of,
    received,
    reference_in,
    replaced,
    send,
    source_of,
    write,
)
from svc.received_files import Folder

if TYPE_CHECKING:
    from svc.broker.base import Broker
    from svc.client.session import Session
    from svc.domain.job import Outcome
    from svc.domain.replies import Welcome

#: Stands for a reference where only its size matters.
_PLACEHOLDER = LargeReference(1, 1 << 30, bytes(32))


class LargeValuesClient:
    """Sends and fetches the large values of one session; a `pending.LargeSender`."""

    def __init__(self, session: Session) -> None:
        """Use connections of *session* for calls that wait, so that no other call waits for a transfer."""
        self._session = session

    # --- arguments ----------------------------------------------------------------------------------

    def job(
        self, template: JobTemplate, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> PendingJob | None:
        """Return the job of a call, or None if its arguments fit into a body.

        Raises:
            CodecError: a file cannot be read, or the manager takes none.
            JobTooLarge: a value is over the manager's limit, or there are too many.
        """
        names = template.parameter_names
        values = [value for value in (*args, *kwargs.values()) if may_be_large(value)]
        sizes = _sizes(values)
        rest, _ = codec.encode_with_types(*replaced(args, kwargs, _placeholder), names)
        welcome = self._welcome()
        has_files = any(isinstance(value, File) for value in values)
        if not has_files and len(rest) + sum(sizes) <= welcome.max_job_bytes:
            if not any(isinstance(value, FileBytes) for value in values):
                return None
            args, kwargs = replaced(args, kwargs, _inline)
            body, used = codec.encode_call(codec.PLAIN, args, kwargs, names, whole=True)
            return _pending(template, template.typed_terms if used == codec.TYPED else template.terms, body)
        _check(
            welcome, dict(zip(_large_names(template, args, kwargs), sizes, strict=True)), has_files=has_files
        )
        if not welcome.largest_value:
            return None
        job = _pending(template, msgspec.structs.replace(template.terms, codec=codec.LARGE), b"")
        job.alone = True
        job.store = partial(self._store, template, args, kwargs)
        return job

    def _store(
        self, template: JobTemplate, args: Sequence[object], kwargs: Mapping[str, object], job: PendingJob
    ) -> None:
        """Store the large arguments under the name of *job*, and write its body."""
        sizes: list[int] = []

        def reference(value: Any) -> object:
            if not may_be_large(value):
                return value
            source = source_of(value)
            try:
                sizes.append(source.size)
                place, piece = len(sizes), self._welcome().piece_size
                store = partial(self._store_pieces, job.origin, job.number, place, source.size)
                return send(source, place, piece, store)
            finally:
                source.close()

        sent = replaced(args, kwargs, reference)
        job.body, _ = codec.encode_with_types(*sent, template.parameter_names)
        job.large = sizes

    def _store_pieces(
        self, origin: str, number: int, place: int, size: int, pieces: Sequence[tuple[int, Any]]
    ) -> int:
        under = self._session.under()
        commands = [c.StorePiece(origin, number, place, size, at, data, under) for at, data in pieces]
        return self._session.transfer(lambda broker: broker.store(commands))

    # --- results ------------------------------------------------------------------------------------

    def fetch(self, job_id: str, reference: LargeReference) -> Any:
        """Return the large result of a job.

        Raises:
            LargeValueLost: the manager does not have it.
            CodecError: the content is another one, or there is no room for the file.
        """
        pieces = self._pieces(job_id, reference)
        if reference.kind is not Kind.FILE:
            return received(reference, pieces)
        folder = Folder()
        file = File.received(folder.path / "file", reference.name, folder)
        file.path = folder.path / file.name
        write(pieces, file.path)
        return file

    def save(self, job_id: str, reference: LargeReference, path: Path) -> None:
        """Write the large result of a job to *path*, whole or not at all; as `fetch`."""
        _replace(self._pieces(job_id, reference), path)

    def save_result(self, outcome: Outcome, path: Path) -> None:
        """Write a result that is bytes or a file to *path*.

        Raises:
            JobFailed, JobCancelled: the job did not succeed.
            CodecError: the result is neither, or the file cannot be written.
        """
        reference = reference_in(outcome.result)
        if reference is not None:
            self.save(outcome.id, reference, path)
            return
        value = self._session.value(outcome)
        if not isinstance(value, bytes | bytearray):
            raise CodecError(f"the result of {outcome.id} is no bytes or file, but {type(value).__name__}")
        _replace(iter((bytes(value),)), path)

    def pieces(self, outcome: Outcome) -> Iterator[bytes] | None:
        """Return the pieces of a large result, checked at the end; None if *outcome* has its result whole."""
        reference = reference_in(outcome.result)
        return None if reference is None else self._pieces(outcome.id, reference)

    def _pieces(self, job_id: str, reference: LargeReference) -> Iterator[bytes]:
        def fetch(offsets: Sequence[int]) -> list[bytes]:
            commands = [c.FetchResult(job_id, at) for at in offsets]
            return self._session.transfer(lambda broker: broker.fetch(commands))

        return pieces_of(reference, self._welcome().piece_size, fetch)

    def _welcome(self) -> Welcome:
        return self._session.transfer(_welcome)


def _replace(pieces: Iterator[bytes], path: Path) -> None:
    """Write a file under another name, and let it take the place of *path*."""
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    try:
        write(pieces, beside)
        os.replace(beside, path)  # noqa: PTH105
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise CodecError(f"{path} cannot be written: {error.strerror or error}") from None
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _welcome(broker: Broker) -> Welcome:
    if not broker.welcome.version:
        broker.ping()  # the connection is made at the first call
    return broker.welcome


def _sizes(values: Sequence[Any]) -> list[int]:
    sizes = []
    for value in values:
        source = source_of(value)
        sizes.append(source.size)
        source.close()
    return sizes


def _placeholder(value: object) -> object:
    return _PLACEHOLDER if may_be_large(value) else value


def _inline(value: object) -> object:
    return value.path.read_bytes() if isinstance(value, FileBytes) else value


def _pending(template: JobTemplate, terms: Any, body: bytes) -> PendingJob:
    options = template.options
    return PendingJob(terms, body, options.delay, options.key, alone=bool(options.key))


def _large_names(template: JobTemplate, args: Sequence[object], kwargs: Mapping[str, object]) -> list[str]:
    """Return the names of the arguments that may be large."""
    named = [*zip(template.parameter_names(len(args)), args, strict=True), *kwargs.items()]
    return [name for name, value in named if may_be_large(value)]


def _check(welcome: Welcome, sizes: Mapping[str, int], *, has_files: bool) -> None:
    if not welcome.largest_value:
        if has_files:
            raise CodecError(
                "the manager takes no files: it is of an earlier release, or has --max-value-bytes 0; "
                "pass the content as bytes"
            )
        return
    name, most = max(sizes.items(), key=lambda each: each[1])
    if most > welcome.largest_value:
        raise JobTooLarge(
            f"argument {name} takes {most} bytes and the limit is {welcome.largest_value} bytes "
            "(`svc manager --max-value-bytes`); pass a reference to the data instead"
        )
    if len(sizes) > LARGE_ARGUMENTS_MAX:
        raise JobTooLarge(
            f"a job has at most {LARGE_ARGUMENTS_MAX} large arguments, and this has {len(sizes)}"
        )
