"""Encodes arguments and results as bytes. The manager does not decode the jobs of svc's own clients.

`plain` is MessagePack: arguments and results are data. `typed` is the same with extension types in it, for
values that MessagePack does not have; a client takes it in place of `plain` if an argument is such a value.
`pickle` encodes any Python object, and reading it runs code. So a reader must accept it explicitly, and opens
a pickle only in an envelope that is signed for the same job. A result is always MessagePack, with extension
types if the job's submitter can read them. If a job's codec is `pickle` and its result is not data, the
MessagePack holds an extension of type 80 (`P`), which is an envelope.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from svc import extensions
from svc.domain import names
from svc.envelope import Envelopes
from svc.errors import CodecError, UntrustedPickle
from svc.extensions import SCALARS, as_data, place_of, value_of
from svc.large import REFERENCE, LargeReference, may_be_large, reference_in, reference_of
from svc.pickling import loads, pickled

PLAIN, PICKLE = CODECS = names.CODECS
TYPED, LARGE = names.TYPED, names.LARGE
#: The types that need no look at the value itself; bytes may be large.
QUICK = SCALARS - {bytes}
#: Bytes of a pickled exception that are sent with a failure.
EXCEPTION_BYTES_MAX = 16 * 1024
_PICKLE_EXTENSION = 80

_Arguments = tuple[list[Any], dict[str, Any]]
_encoder = msgspec.msgpack.Encoder()
_plain_encoder = msgspec.msgpack.Encoder(enc_hook=as_data)
_arguments_decoder: msgspec.msgpack.Decoder[_Arguments] = msgspec.msgpack.Decoder(_Arguments)
_typed_decoder: msgspec.msgpack.Decoder[_Arguments] = msgspec.msgpack.Decoder(_Arguments, ext_hook=value_of)
#: That which an encoder raises for a value that it cannot encode.
_REFUSALS = (TypeError, ValueError, OverflowError, RecursionError)


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


#: The names of so many positional arguments.
Names = Callable[[int], Sequence[str]]


def accepted(codecs: Collection[str]) -> tuple[str, ...]:
    """Return the codecs of the jobs that a consumer with *codecs* gets: `plain` stands for three."""
    return (*codecs, TYPED, LARGE) if PLAIN in codecs else tuple(codecs)


class LargeArguments(Exception):
    """Among the arguments of a call are files, or bytes that may have to travel in pieces."""


def by_name(kwargs: Mapping[str, object]) -> Mapping[str, object]:
    """Return keyword arguments in the order of their names, in which a job with a key has them.

    A body of the same arguments is then the same, however its caller has ordered them.
    """
    in_order = dict(sorted(kwargs.items(), key=_name))
    return kwargs if list(in_order) == list(kwargs) else in_order


def _name(item: tuple[str, object]) -> str:
    return str(item[0])  # no text yet if the caller made a mistake, which the encoder tells


def encode_quickly(args: Sequence[object], kwargs: Mapping[str, object]) -> bytes | None:
    """Return the body of a plain job whose arguments need no walk, as those of most; None for any other."""
    if kwargs:
        return None
    for value in args:
        if type(value) not in QUICK:
            return None
    try:
        return _encoder.encode((args, kwargs))
    except _REFUSALS:
        return None  # a number is too large, or a text has a surrogate


def encode_call(
    codec: str,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    names: Names = _numbers,
    *,
    whole: bool = False,
) -> tuple[bytes, str]:
    """Return the body of a job and its codec: `typed` in place of `plain` if it has extension types.

    *names* returns the names of so many positional arguments, for messages. If *whole*, all bytes go into it.

    Raises:
        LargeArguments: nothing was encoded, as some of them may have to travel in pieces.
        CodecError: *codec* cannot encode an argument; the message names it.
    """
    if codec != PLAIN:
        return encode_arguments(codec, args, kwargs, names), codec
    if not whole and (any(map(may_be_large, args)) or any(map(may_be_large, kwargs.values()))):
        raise LargeArguments
    return encode_with_types(args, kwargs, names)


def encode_with_types(
    args: Sequence[object], kwargs: Mapping[str, object], names: Names
) -> tuple[bytes, str]:
    """Return the body of a job, with references to large values if there are any, and its codec without them.

    Raises:
        CodecError: an argument is no data; the message names it.
    """
    try:
        if extensions.are_plain([*args, *kwargs.values()] if kwargs else args):
            return _encoder.encode((args, kwargs)), PLAIN
    except _REFUSALS:
        pass  # a number may be too large for MessagePack and not for an extension
    try:
        body, extended = extensions.encode([list(args), dict(kwargs)])
    except _REFUSALS as error:
        place = place_of((args, kwargs), partial(_is_refused, extensions.encode), names(len(args)))
        raise CodecError(f"{place} {_fault(error)}; pass data, or use the pickle codec") from None
    return body, TYPED if extended else PLAIN


def _is_refused(encode: Callable[[object], object], value: object) -> bool:
    try:
        encode(value)
    except (*_REFUSALS, CodecError):
        return True
    return False


def encode_arguments(
    codec: str, args: Sequence[object], kwargs: Mapping[str, object], names: Names = _numbers
) -> bytes:
    """Return the body of a job in *codec* alone; a pickle still needs its envelope, once the job has its id.

    Raises:
        CodecError: *codec* cannot encode the arguments.
    """
    if codec == PICKLE:
        return _pickled_arguments(args, kwargs, names)
    try:
        return _plain_encoder.encode((args, kwargs))
    except _REFUSALS as error:
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
    if codec not in accept and not (codec in {TYPED, LARGE} and PLAIN in accept):
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
            args, kwargs = loads(opened(body))
            return list(args), dict(kwargs)
        if codec == LARGE:
            return _decode_large(body)
        return (_typed_decoder if codec == TYPED else _arguments_decoder).decode(body)
    except (UntrustedPickle, CodecError):
        raise
    except Exception as error:
        raise CodecError(f"the arguments cannot be read: {type(error).__name__}: {error}") from error


def _decode_large(body: bytes) -> _Arguments:
    """Return arguments with references among them; a reference within another value is an error."""
    found: list[LargeReference] = []

    def value(code: int, content: memoryview) -> Any:
        if code != REFERENCE:
            return value_of(code, content)
        found.append(reference_of(content))
        return found[-1]

    args, kwargs = msgspec.msgpack.decode(body, type=_Arguments, ext_hook=value)
    if len(found) != sum(isinstance(each, LargeReference) for each in (*args, *kwargs.values())):
        raise CodecError("a reference to a large value is not an argument itself")
    return args, kwargs


def quick_decoder(codec: str, accept: Collection[str]) -> Callable[[bytes], _Arguments] | None:
    """Return the quickest way to do what `decode_arguments` does, except for its errors.

    None if there is none. If the returned function raises, `decode_arguments` tells why.
    """
    if codec in accept and codec == PLAIN:
        return _arguments_decoder.decode
    return _typed_decoder.decode if codec == TYPED and PLAIN in accept else None


def quick_encoder(codec: str) -> Callable[[object], bytes]:
    """Return the quickest way to do what `encode_result` does with a value of one of the `QUICK` types."""
    return (_encoder if codec == PICKLE else _plain_encoder).encode


def encode_result(
    codec: str,
    value: object,
    envelopes: Envelopes | None = None,
    *,
    typed: bool = False,
    large: Callable[[Any], bytes | None] | None = None,
) -> bytes:
    """Return the result of a job as bytes; *envelopes* signs a result that has to be a pickle.

    With *typed* the job's submitter can read extension types, and the result keeps its type. With *large* it
    can fetch pieces: *large* stores a value that is too large, and returns what `encode_reference` does.

    Raises:
        CodecError: *codec* cannot encode the result.
    """
    try:
        kind = type(value)
        if kind not in QUICK:
            if large is not None and may_be_large(value) and (stored := large(value)) is not None:
                return stored
            if typed and kind not in SCALARS and not extensions.are_plain((value,)):
                return _encoded_result(codec, value, envelopes)
        return (_encoder if codec == PICKLE else _plain_encoder).encode(value)
    except _REFUSALS as error:
        if codec == PICKLE and envelopes is not None:
            return _sealed_result(value, envelopes)
        if typed and isinstance(error, OverflowError):  # a number in plain data that needs an extension
            with suppress(*_REFUSALS):
                return extensions.encode(value)[0]
        raise CodecError(
            f"the result of type {type(value).__name__} {_fault(error)}; "
            "return data, or submit with the pickle codec"
        ) from None


def encode_checkpoint(data: object) -> bytes:
    """Return the data of a checkpoint as bytes.

    Raises:
        CodecError: it is neither bytes nor plain data.
    """
    try:
        return _plain_encoder.encode(data)
    except _REFUSALS as error:
        raise CodecError(
            f"the checkpoint of type {type(data).__name__} {_fault(error)}; leave bytes or plain data"
        ) from None


def _fault(error: Exception) -> str:
    """Return the fault of a value that an encoder has refused with *error*, as the end of a sentence."""
    if isinstance(error, UnicodeEncodeError):
        return f"holds a character that UTF-8 cannot encode ({error.object[error.start]!a})"
    return f"is not plain data ({error})"


def encode_reference(reference: LargeReference) -> bytes:
    """Return the result of a job whose value is stored in pieces."""
    return _encoder.encode(msgspec.msgpack.Ext(REFERENCE, reference.content()))


def _encoded_result(codec: str, value: object, envelopes: Envelopes | None) -> bytes:
    exact = codec == PICKLE and envelopes is not None
    try:
        return extensions.encode(value, exact=exact)[0]
    except _REFUSALS:
        if not exact or envelopes is None:
            raise
        return _sealed_result(value, envelopes)


def _sealed_result(value: object, envelopes: Envelopes) -> bytes:
    sealed = envelopes.seal_answer("result", pickled(value))
    return _encoder.encode(msgspec.msgpack.Ext(_PICKLE_EXTENSION, sealed))


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
    except CodecError as error:
        # Only now, as nearly all results are no extension: a reference to a large value is one.
        if (reference := reference_in(body)) is None:
            raise
        raise CodecError(
            f"the result is a {reference!r}, which is fetched in pieces: `svc results ID --output FILE`, "
            "or `Job.result`"
        ) from error
    except KeyboardInterrupt:
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
        content = pickled(error)
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
        error = loads(signed)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  # an exception with an __init__ of its own often fails to unpickle, in any way
        return None
    return error if isinstance(error, Exception) else None


def _unpickle(envelopes: Envelopes, code: int, data: memoryview) -> Any:
    if code != _PICKLE_EXTENSION:
        return value_of(code, data)
    return loads(envelopes.open_answer("result", data))


def _unless_pickle(code: int, data: memoryview) -> Any:
    if code != _PICKLE_EXTENSION:
        return value_of(code, data)
    raise CodecError("the result is a pickled object; accept pickle, and have its key, to read it")


_plain_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=_unless_pickle)


def _pickled_arguments(args: Sequence[object], kwargs: Mapping[str, object], names: Names) -> bytes:
    try:
        return pickled((tuple(args), dict(kwargs)))
    except CodecError as error:
        place = place_of((args, kwargs), partial(_is_refused, pickled), names(len(args)))
        raise CodecError(f"{place}: {error}") from error.__cause__
