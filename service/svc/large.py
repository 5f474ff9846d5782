"""Large values: bytes and files that travel in pieces, and the references to them in the bodies of jobs.

A reference has the size and the digest of a value, but not its content. It never reaches the code of a user:
whoever reads a body gets the content in its place, or an error.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, Protocol, Self

import msgspec

from svc.errors import CodecError, LargeValueLost

#: The code of the extension that holds a reference. It never changes.
REFERENCE: Final = 12
#: The size from which bytes may travel in pieces, if all arguments together are over `--max-job-bytes`.
LARGE_FROM: Final = 64 * 1024
#: Bytes of the name of a file, on nearly all file systems.
_NAME_BYTES = 255
_COPY_BYTES = 1024 * 1024
_DIGEST_BYTES = 32
#: The first bytes of an extension in MessagePack, of 1, 2, 4, 8, 16 bytes and of other lengths.
EXTENSION_HEADS: Final = frozenset(b"\xd4\xd5\xd6\xd7\xd8\xc7\xc8\xc9")


class File:
    """A file that is an argument or the result of a job.

    ::

        client.submit("scans:measure", svc.File("scan.tif"))

        def measure(scan: svc.File) -> svc.File:
            with scan.open() as content:  # or `open(scan)`, or a library that takes `scan.path`
                ...
            return svc.File("measured.csv")

    The file may have up to 1 GiB, and is never held in memory whole. In a task it lies in a directory of the
    consumer until the attempt ends; with a client that got it as a result, until this object is gone. `save`
    keeps it.

    Attributes:
        path: the file on this host.
        name: its name, without directories.
    """

    __slots__ = ("__weakref__", "_folder", "name", "path")

    def __init__(self, path: str | os.PathLike[str], *, name: str | None = None) -> None:
        """Name the file at *path*; it is read when the job is submitted, or when the task has returned.

        The other side sees it as *name*, which is its own name by default.
        """
        self.path = Path(path)
        self.name = safe_name(self.path.name if name is None else name)
        self._folder: object = None

    @classmethod
    def received(cls, path: Path, name: str, folder: object) -> Self:
        """Return a file that has come from elsewhere and lies in *folder*, which must live as long."""
        file = cls(path, name=name)
        file._folder = folder
        return file

    @property
    def size(self) -> int:
        """Its bytes.

        Raises:
            OSError: it does not exist.
        """
        return self.path.stat().st_size

    def open(self) -> BinaryIO:
        """Open it to read bytes.

        Raises:
            OSError: it cannot be read.
        """
        return self.path.open("rb")

    def save(self, target: str | os.PathLike[str]) -> Path:
        """Copy it to *target*, a path or an existing directory; return the path of the copy.

        Raises:
            OSError: it cannot be read, or *target* not be written.
        """
        import shutil  # commands that start fast come by here

        path = Path(target)
        path = path / self.name if path.is_dir() else path
        with self.open() as source, path.open("wb") as copy:
            shutil.copyfileobj(source, copy, _COPY_BYTES)
        return path

    def __fspath__(self) -> str:
        """Return the path, so that `open(file)` and `Path(file)` work."""
        return str(self.path)

    def __repr__(self) -> str:
        """Return `File('path')`."""
        return f"File({str(self.path)!r})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a path means something on one host only.

        Raises:
            TypeError: always.
        """
        raise TypeError("a svc.File travels as an argument itself, with the codec plain, or as the result")


def safe_name(name: str) -> str:
    """Return the last part of *name* as the name of a file in any directory; `file` if it is none."""
    last = name.replace("\\", "/").rpartition("/")[2]
    usable = last not in {"", ".", ".."} and last.isprintable()
    return last if usable and len(last.encode(errors="replace")) <= _NAME_BYTES else "file"


class Kind(enum.IntEnum):
    """The type of a large value."""

    BYTES = 0
    BYTEARRAY = 1
    FILE = 2


class LargeReference(msgspec.Struct, frozen=True, array_like=True):
    """Stands for a large value in a body: its place among those of the job, its size and SHA-256."""

    place: int
    size: int
    digest: bytes
    kind: Kind = Kind.BYTES
    name: str = ""

    def __repr__(self) -> str:
        """Return a text for people, such as `<file 'scan.tif' of 1048576 bytes>`."""
        what = f"file {self.name!r}" if self.kind is Kind.FILE else self.kind.name.lower()
        return f"<{what} of {self.size} bytes>"

    def content(self) -> bytes:
        """Return the content of its extension."""
        return msgspec.msgpack.encode(self)


_decoder = msgspec.msgpack.Decoder(LargeReference)


def reference_of(content: bytes | memoryview) -> LargeReference:
    """Return the reference in an extension.

    Raises:
        CodecError: it has none.
    """
    try:
        found = _decoder.decode(content)
    except msgspec.MsgspecError as error:
        raise CodecError(f"the reference to a large value cannot be read: {error}") from None
    if found.size < 0 or len(found.digest) != _DIGEST_BYTES:
        raise CodecError("the reference to a large value has no sensible size or digest")
    return found


def reference_in(result: bytes) -> LargeReference | None:
    """Return the reference that a result is, or None for any other.

    Raises:
        CodecError: it cannot be read.
    """
    if not result or result[0] not in EXTENSION_HEADS:
        return None
    try:
        found = msgspec.msgpack.decode(result)
    except (msgspec.MsgspecError, ValueError):
        return None
    is_one = isinstance(found, msgspec.msgpack.Ext) and found.code == REFERENCE
    return reference_of(found.data) if is_one else None


# --- values to send -----------------------------------------------------------------------------------------


def may_be_large(value: object) -> bool:
    """Return whether a value is a file, or bytes of a size that may have to travel in pieces."""
    if isinstance(value, bytes | bytearray):
        return len(value) >= LARGE_FROM
    return isinstance(value, File | FileBytes) or (
        isinstance(value, memoryview) and value.nbytes >= LARGE_FROM
    )


class FileBytes:
    """The content of a file, which arrives as bytes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name the file at *path*."""
        self.path = Path(path)


class Source(Protocol):
    """A value that is sent piece by piece."""

    size: int
    kind: Kind
    name: str

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return *size* bytes from *offset* on."""

    def close(self) -> None:
        """Close the file, if it is one."""


class _Buffer:
    """Bytes in memory."""

    name = ""

    def __init__(self, value: bytes | bytearray | memoryview) -> None:
        self.kind = Kind.BYTEARRAY if isinstance(value, bytearray) else Kind.BYTES
        view = memoryview(value)
        self._view = view.cast("B") if view.contiguous else memoryview(view.tobytes())
        self.size = self._view.nbytes

    def read(self, offset: int, size: int) -> memoryview:
        return self._view[offset : offset + size]

    def close(self) -> None:
        self._view.release()


class _OpenFile:
    """A file on disk."""

    def __init__(self, value: File | FileBytes) -> None:
        self.kind, self.name = (Kind.FILE, value.name) if isinstance(value, File) else (Kind.BYTES, "")
        try:
            self._file = value.path.open("rb")
        except (OSError, ValueError) as error:
            raise CodecError(f"the file {value.path} cannot be read: {_reason(error)}") from None
        self.size = os.fstat(self._file.fileno()).st_size
        self._path = value.path

    def read(self, offset: int, size: int) -> bytes:
        try:
            self._file.seek(offset)
            data = self._file.read(size)
        except OSError as error:
            raise CodecError(f"the file {self._path} cannot be read: {_reason(error)}") from None
        if len(data) != size:
            raise CodecError(f"the file {self._path} became shorter while it was sent")
        return data

    def close(self) -> None:
        self._file.close()


def source_of(value: Any) -> Source:
    """Return a value for which `may_be_large` holds as a source; it has to be closed.

    Raises:
        CodecError: the file cannot be read.
    """
    return _OpenFile(value) if isinstance(value, File | FileBytes) else _Buffer(value)


#: Stores the piece of a value at an offset; returns the offset of the next one.
Store = Callable[[Sequence[tuple[int, bytes | memoryview]]], int]
#: Returns the pieces of a value at these offsets.
Fetch = Callable[[Sequence[int]], list[bytes]]
#: Pieces in one request.
WINDOW = 4
#: How often a value may be begun anew because the manager has forgotten the first pieces.
_BEGINS_MAX = 5


def send(source: Source, place: int, piece: int, store: Store) -> LargeReference:
    """Send a value in pieces of *piece* bytes; return the reference to it.

    Raises:
        LargeValueLost: the manager forgets it again and again.
        CodecError: a file cannot be read, or became shorter.
    """
    import hashlib

    digest, hashed, offset, begins = hashlib.sha256(), 0, 0, 0
    while offset < source.size:
        stop = min(source.size, offset + WINDOW * piece)
        pieces = [(at, source.read(at, min(piece, stop - at))) for at in range(offset, stop, piece)]
        for at, data in pieces:
            if at == hashed:
                digest.update(data)
                hashed += len(data)
        following = store(pieces)
        begins += following <= offset
        if begins > _BEGINS_MAX or not 0 <= following <= stop:
            raise LargeValueLost(
                "the manager does not keep the pieces of a large value; submit the job again"
            )
        offset = following
    return LargeReference(place, source.size, digest.digest(), source.kind, source.name)


# --- values that come ---------------------------------------------------------------------------------------


def pieces_of(reference: LargeReference, piece: int, fetch: Fetch) -> Iterator[bytes]:
    """Yield the pieces of a value, of *piece* bytes each; they are checked against its digest at the end.

    Raises:
        CodecError: the content is another one.
    """
    import hashlib

    digest, got = hashlib.sha256(), 0
    while got < reference.size:
        for data in fetch(range(got, min(reference.size, got + WINDOW * piece), piece)):
            digest.update(data)
            got += len(data)
            yield data
    if got != reference.size or digest.digest() != reference.digest:
        raise CodecError(f"the content of {reference} is not what its sender has sent")


def received(reference: LargeReference, pieces: Iterator[bytes]) -> bytes | bytearray:
    """Return the value of a reference that is no file, made in one buffer of its size."""
    if reference.kind is Kind.BYTEARRAY:
        array = bytearray(reference.size)
        at = 0
        for data in pieces:
            array[at : at + len(data)] = data
            at += len(data)
        return array
    buffer = BytesIO()
    for data in pieces:
        buffer.write(data)
    return buffer.getvalue()


def write(pieces: Iterator[bytes], path: Path) -> None:
    """Write pieces to a new file.

    Raises:
        CodecError: the disk is full, or this process may not write there.
    """
    try:
        with path.open("xb") as file:
            for data in pieces:
                file.write(data)
    except OSError as error:
        raise CodecError(f"a file cannot be kept at {path}: {_reason(error)}") from error


def replaced(
    args: Sequence[object], kwargs: Mapping[str, object], by: Callable[[Any], object]
) -> tuple[list[object], dict[str, object]]:
    """Return arguments in which each large value, or reference, is what *by* returns for it."""
    return [by(value) for value in args], {name: by(value) for name, value in kwargs.items()}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", "") or str(error)
