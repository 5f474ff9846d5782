"""Encodes arguments and results as bytes. The manager does not decode the jobs of svc's own clients.

`plain` is MessagePack: arguments and results are data. `pickle` encodes any Python object, and reading it
runs code. So a reader must accept it explicitly, and opens a pickle only in an envelope that is signed for
the same job. A result is always MessagePack. If a job's codec is `pickle` and its result is not plain data,
the MessagePack holds an extension of type 80 (`P`), which is an envelope.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import msgspec

from svc.annotations import as_data
from svc.domain import names
from svc.envelope import Envelopes
from svc.errors import CodecError, UntrustedPickle

PLAIN, PICKLE = CODECS = names.CODECS
#: Bytes of a pickled exception that are sent with a failure.
EXCEPTION_BYTES_MAX = 16 * 1024
_PICKLE_EXTENSION = 80
#: The modules that a pickle of an executor's call or of a result may name, by their names before release 0.2.
_RENAMED = {f"service.{module}": f"svc.{module}" for module in ("callables", "errors")}

_Arguments = tuple[list[Any], dict[str, Any]]
_encoder = msgspec.msgpack.Encoder()
_plain_encoder = msgspec.msgpack.Encoder(enc_hook=as_data)
_arguments_decoder: msgspec.msgpack.Decoder[_Arguments] = msgspec.msgpack.Decoder(_Arguments)


def encode_arguments(codec: str, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
    """Return the body of a job; a pickle still needs its envelope, once the job has its id.

    Raises:
        CodecError: *codec* cannot encode the arguments.
    """
    if codec == PICKLE:
        return _pickled((tuple(args), dict(kwargs)))
    try:
        return _plain_encoder.encode((args, kwargs))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CodecError(
            f"the arguments are not plain data ({error}); pass data, or use the pickle codec"
        ) from None


def decode_arguments(
    codec: str,
    body: bytes,
    accept: Collection[str],
    opened: Callable[[bytes], memoryview] | None = None,
) -> _Arguments:
    """Return (args, kwargs) of a job's body; *opened* takes a pickle out of its envelope.

    Raises:
        CodecError: the job's codec is not among those in *accept*, or the body cannot be read.
        UntrustedPickle: the body is a pickle that is not signed for this job.
    """
    if codec not in accept:
        raise CodecError(
            f"the job's codec is {codec!r} and this worker accepts {', '.join(sorted(accept))}; "
            f"start it with `--accept {codec}` if you trust everyone who can sign pickles"
        )
    if codec == PICKLE and opened is None:
        raise UntrustedPickle(
            "the job is a pickle and here is no key to check its signature; it was not opened"
        )
    try:
        if opened is not None:
            args, kwargs = _loads(opened(body))
            return list(args), dict(kwargs)
        return _arguments_decoder.decode(body)
    except UntrustedPickle:
        raise
    except Exception as error:
        raise CodecError(f"the arguments cannot be read: {type(error).__name__}: {error}") from error


def encode_result(codec: str, value: object, envelopes: Envelopes | None = None) -> bytes:
    """Return the result of a job as bytes; *envelopes* signs a result that has to be a pickle.

    Raises:
        CodecError: *codec* cannot encode the result.
    """
    try:
        return (_encoder if codec == PICKLE else _plain_encoder).encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if codec == PICKLE and envelopes is not None:
            sealed = envelopes.seal_answer("result", _pickled(value))
            return _encoder.encode(msgspec.msgpack.Ext(_PICKLE_EXTENSION, sealed))
        raise CodecError(
            f"the result of type {type(value).__name__} is not plain data ({error}); "
            "return data, or submit with the pickle codec"
        ) from None


def decode_result(body: bytes, envelopes: Envelopes | None = None) -> Any:
    """Return the value inside a result; *envelopes* opens a pickled one.

    Raises:
        CodecError: the result is a pickled object and *envelopes* is None, or it cannot be read.
        UntrustedPickle: the result is a pickled object that is not signed for this job.
    """
    if not body:
        # A plain client acknowledged the job, and `task_done()` has no result.
        return None
    try:
        if envelopes is None:
            return _plain_decoder.decode(body)
        return msgspec.msgpack.decode(body, ext_hook=partial(_unpickle, envelopes))
    except (CodecError, KeyboardInterrupt):
        raise
    except BaseException as error:
        # A result must not end the process that reads it, like a SystemExit in its `__setstate__` would.
        raise CodecError(f"the result cannot be read: {type(error).__name__}: {error}") from error


def encode_exception(error: BaseException, envelopes: Envelopes) -> bytes:
    """Return *error* as a signed pickle for `decode_exception`; empty if it has none, or too large a one.

    Only an `Exception` is sent: a SystemExit of a task must not end the process that reads it.
    """
    if not isinstance(error, Exception):
        return b""
    try:
        content = _pickled(error)
    except CodecError:
        return b""
    return envelopes.seal_answer("exception", content) if len(content) <= EXCEPTION_BYTES_MAX else b""


def decode_exception(content: bytes, envelopes: Envelopes) -> Exception | None:
    """Return the exception in the output of `encode_exception`, or None if it cannot be read here.

    Raises:
        UntrustedPickle: the pickle is not signed for this job.
    """
    signed = envelopes.open_answer("exception", content)
    try:
        error = _loads(signed)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  # an exception with an __init__ of its own often fails to unpickle, in any way
        return None
    return error if isinstance(error, Exception) else None


def _unpickle(envelopes: Envelopes, code: int, data: memoryview) -> Any:
    if code != _PICKLE_EXTENSION:
        raise CodecError(f"the result has an extension of unknown type {code}")
    return _loads(envelopes.open_answer("result", data))


def _refuse(code: int, data: memoryview) -> Any:
    raise CodecError("the result is a pickled object; accept pickle, and have its key, to read it")


_plain_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=_refuse)


class _Unpickler(pickle.Unpickler):
    """Reads the pickles of this release and of the one before, in which svc's own package was `service`."""

    def find_class(self, module: str, name: str, /) -> Any:
        """Return a global; one of svc's own modules is found under its present name."""
        return super().find_class(_RENAMED.get(module, module), name)


def _loads(signed: memoryview) -> Any:
    """Return the object in a pickle whose signature was right."""
    return _Unpickler(io.BytesIO(signed)).load()


def _pickled(value: object) -> bytes:
    try:
        return bytes(pickler().dumps(value))
    except Exception as error:
        raise CodecError(f"{type(value).__name__} cannot be pickled: {error}") from error


def pickler() -> ModuleType:
    """Import and return cloudpickle if it is installed (for lambdas and local classes), else `pickle`."""
    try:
        import cloudpickle
    except ImportError:
        return pickle
    return cloudpickle  # type: ignore[no-any-return]  # ships no types
