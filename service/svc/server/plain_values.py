"""The values in replies to stock clients: plain data that the manager has scanned, from any origin and codec.

A stock client unpickles each reply, and so runs any code in it. The bytes of a job may come from any peer
with a key, or from a writer of the journal. They never become part of a reply's pickle: they are scanned,
read as plain data, and pickled anew. If that fails, the reply holds the job's id and codec in place of its
value.
"""

from __future__ import annotations

import pickle
from typing import Any

import msgspec

from svc import codec
from svc.domain import replies as r
from svc.domain.job import ITEM_CODEC, Outcome
from svc.domain.lifecycle import JobState
from svc.domain.names import NAME_MAX
from svc.errors import CodecError, ServiceError
from svc.extensions import data_of
from svc.server import msgpack_scan
from svc.server.pickle_machine import OPERATIONS_MAX
from svc.server.pickle_scan import loads_plain

# In this protocol, which CPython 3.8 reads, no kind of plain data is pickled as a call.
_PROTOCOL = 5
#: The most opcodes of an item: the manager's pickle of a value may have twice as many as the client's.
_ITEM_OPERATIONS_MAX = 2 * OPERATIONS_MAX
#: Characters of an error's text: it may name what the client has sent, the key of a mapping for example.
_ERROR_TEXT_MAX = 1000


def shown(value: object) -> str:
    """Return a short text for *value*, which may be any plain data: to write out all of it may take long."""
    return repr(value[:NAME_MAX]) if isinstance(value, str) else f"a value of the type {type(value).__name__}"


def pickled(item: object) -> bytes:
    """Return the body of a job that carries *item* from one stock client to another."""
    return pickle.dumps(item, protocol=_PROTOCOL)


def reply_bytes(value: object) -> bytes:
    """Return the pickle of the stdlib's reply for *value*; the client raises it if it is an exception."""
    kind = "#ERROR" if isinstance(value, BaseException) else "#RETURN"
    return pickle.dumps((kind, value), protocol=_PROTOCOL)


def as_put(delivery: r.Delivery) -> object:
    """Return a leased job as its producer put it, or a mapping with its id, codec and body."""
    terms, body = delivery.terms, delivery.bodies[0]
    try:
        if terms.codec == ITEM_CODEC:
            return _item(body)
        args, kwargs = _arguments(terms.codec, body)
    except Exception:  # noqa: BLE001  # bad bytes of one job must not affect other clients
        job = f"{delivery.origin}-{delivery.first}"
        return {"id": job, "task": terms.task, "codec": terms.codec, "body": body}
    return terms.task, tuple(args), kwargs


def as_taken(outcome: Outcome) -> object:
    """Return the value of `results.get()`: an item that was put there, or the outcome of a job."""
    if outcome.codec != ITEM_CODEC or outcome.state != JobState.SUCCEEDED:
        return as_answer(outcome)
    try:
        return _item(outcome.result)
    except Exception as error:  # noqa: BLE001  # likewise
        return _unreadable(outcome, error)


def as_answer(outcome: Outcome) -> object:
    """Return the result of a job, or a mapping with its id and error."""
    if outcome.state == JobState.SUCCEEDED:
        try:
            return _result(outcome.result)
        except Exception as error:  # noqa: BLE001  # likewise
            return _unreadable(outcome, error)
    if outcome.error is None:
        return {"id": outcome.id, "error": "cancelled"}
    return {"id": outcome.id, "error": f"{outcome.error.type}: {outcome.error.message}"}


def as_raised(error: Exception) -> Exception:
    """Return *error* as a stock client raises it: of one of the stdlib's classes, with a bounded text."""
    known = isinstance(error, TypeError) and not isinstance(error, ServiceError)
    return (TypeError if known else ValueError)(str(error)[:_ERROR_TEXT_MAX])


def _unreadable(outcome: Outcome, error: Exception) -> dict[str, object]:
    return {"id": outcome.id, "codec": outcome.codec, "error": str(error)}


def _item(body: bytes) -> object:
    return loads_plain(body, max_operations=_ITEM_OPERATIONS_MAX)


def _arguments(name: str, body: bytes) -> tuple[list[Any], dict[str, Any]]:
    if name not in {codec.PLAIN, codec.TYPED}:
        raise CodecError(f"a body of the codec {name} is no data")
    return _arguments_decoder.decode(msgpack_scan.examine(body))


def _result(body: bytes) -> object:
    if not body:
        return None
    return _result_decoder.decode(msgpack_scan.examine(body))


# A stock client gets data alone: other objects would be pickled by the names of their classes.
_arguments_decoder: msgspec.msgpack.Decoder[tuple[list[Any], dict[str, Any]]] = msgspec.msgpack.Decoder(
    tuple[list[Any], dict[str, Any]], ext_hook=data_of
)
_result_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=data_of)
