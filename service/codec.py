"""How arguments and results become bytes. The manager never calls this for a job of ours.

`plain` is MessagePack: arguments and results are data. `pickle` carries any Python object and runs code
when it is read, so a reader must accept it explicitly. A result is always MessagePack; one that is not
plain data, of a job whose codec is `pickle`, travels inside it as an extension of type 80 (`P`).
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import Any

import msgspec

from service.errors import CodecError

PLAIN = "plain"
PICKLE = "pickle"
CODECS = (PLAIN, PICKLE)
#: Bytes of a pickled exception that travel with a failure.
EXCEPTION_BYTES_MAX = 16 * 1024
_PICKLE_EXTENSION = 80

_Arguments = tuple[list[Any], dict[str, Any]]
_encoder = msgspec.msgpack.Encoder()
_arguments_decoder: msgspec.msgpack.Decoder[_Arguments] = msgspec.msgpack.Decoder(_Arguments)


def encode_arguments(codec: str, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
    """Return the body of a job.

    Raises:
        CodecError: the arguments are not data that *codec* can carry.
    """
    if codec == PICKLE:
        return _pickled((tuple(args), dict(kwargs)))
    try:
        return _encoder.encode((args, kwargs))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CodecError(
            f"the arguments are not plain data ({error}); pass data, or use the pickle codec"
        ) from None


def decode_arguments(codec: str, body: bytes, accept: Collection[str]) -> _Arguments:
    """Return (args, kwargs) of a job's body.

    Raises:
        CodecError: *codec* is not among those in *accept*, or the body cannot be read.
    """
    if codec not in accept:
        raise CodecError(
            f"the job's codec is {codec!r} and this worker accepts {', '.join(sorted(accept))}; "
            f"start it with `--accept {codec}` if you trust everyone who can submit"
        )
    try:
        if codec == PICKLE:
            args, kwargs = pickle.loads(body)  # noqa: S301  # only where the reader accepts pickle
            return list(args), dict(kwargs)
        return _arguments_decoder.decode(body)
    except Exception as error:
        raise CodecError(f"the arguments cannot be read: {type(error).__name__}: {error}") from error


def encode_result(codec: str, value: object) -> bytes:
    """Return the result of a job as bytes.

    Raises:
        CodecError: the result is not data that *codec* can carry.
    """
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if codec == PICKLE:
            return _encoder.encode(msgspec.msgpack.Ext(_PICKLE_EXTENSION, _pickled(value)))
        raise CodecError(
            f"the result of type {type(value).__name__} is not plain data ({error}); "
            "return data, or submit with the pickle codec"
        ) from None


def decode_result(body: bytes, accept: Collection[str] = (PLAIN,)) -> Any:
    """Return the value inside a result.

    Raises:
        CodecError: it is a pickled object and *accept* has no `pickle`, or it cannot be read.
    """
    if not body:
        # A plain client acknowledged the job, and `task_done()` carries no result.
        return None
    decoder = _pickle_decoder if PICKLE in accept else _plain_decoder
    try:
        return decoder.decode(body)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(f"the result cannot be read: {type(error).__name__}: {error}") from error


def encode_exception(error: BaseException) -> bytes:
    """Return *error* as a pickle for `decode_exception`; empty where it has none, or too large a one.

    Only what is an `Exception` is sent: a SystemExit of a task must not end the process that reads it.
    """
    if not isinstance(error, Exception):
        return b""
    try:
        content = _pickled(error)
    except CodecError:
        return b""
    return content if len(content) <= EXCEPTION_BYTES_MAX else b""


def decode_exception(content: bytes) -> Exception | None:
    """Return what `encode_exception` was given, or None where it cannot be read here.

    A pickle runs code when it is read: only for readers that accept it.
    """
    try:
        error = pickle.loads(content)  # noqa: S301  # only where the reader accepts pickle
    except Exception:  # noqa: BLE001  # an exception with an __init__ of its own often fails to unpickle, in any way
        return None
    return error if isinstance(error, Exception) else None


def _unpickle(code: int, data: memoryview) -> Any:
    if code != _PICKLE_EXTENSION:
        raise CodecError(f"the result has an extension of unknown type {code}")
    return pickle.loads(data)  # noqa: S301  # only where the reader accepts pickle


def _refuse(code: int, data: memoryview) -> Any:
    raise CodecError("the result is a pickled object; accept pickle to read it")


_plain_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=_refuse)
_pickle_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=_unpickle)


def _pickled(value: object) -> bytes:
    try:
        return bytes(_pickler().dumps(value))
    except Exception as error:
        raise CodecError(f"{type(value).__name__} cannot be pickled: {error}") from error


def _pickler() -> ModuleType:
    """Return cloudpickle where it is installed (lambdas, local classes), else the stdlib's pickle."""
    try:
        import cloudpickle
    except ImportError:
        return pickle
    return cloudpickle  # type: ignore[no-any-return]  # ships no types
