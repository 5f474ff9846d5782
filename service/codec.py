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
