"""Reads a request of a plain BaseManager client, which is a pickle, without running any code of it.

A pickle is a program. Before it is run, one pass over its opcodes shows that it only builds None, bool,
int, float, str, bytes, bytearray, tuple, list, dict, set and frozenset, in bounded time and memory. These
are refused:

- every opcode that names a global, calls a function, or refers to persistent or out-of-band data;
- memo numbers other than the next one (`LONG_BINPUT` of a large one makes an array of that size);
- nesting deeper than `NESTING_MAX` (hashing deeply nested tuples overflows the C stack);
- shared objects that grow too large when written out (each level ten times the one below), and cycles;
- long integers, and too many dict keys or set members of kinds whose hashes an attacker can make collide;
- more lone surrogates in texts than `SURROGATES_MAX`, as Python takes long to decode one;
- an end before `STOP` or bytes after it, and counts beyond the end.

A stock client needs no exception to this. Its `get_methods` carries a `Token` object, but only proxies made
with `exposed=None` send it, and `BaseManager.register` always passes on the methods that `create` returned.
Some types are data only in newer pickle protocols (bytes: 3, set: 4, bytearray: 5). In older protocols they
are calls, and are refused.
"""

from __future__ import annotations

import io
import pickle
import time
from typing import NoReturn

from svc.errors import BadRequest
from svc.server.pickle_machine import OPERATIONS_MAX, Examination
from svc.server.pickle_stack import EXPANDED_BYTES_MAX, NESTING_MAX

#: Opcodes that are scanned between two checks of the time: some 2 ms.
_UNTIMED_OPERATIONS = 4096


def loads_plain(
    message: bytes | bytearray | memoryview,
    *,
    max_operations: int = OPERATIONS_MAX,
    max_expanded_bytes: int = EXPANDED_BYTES_MAX,
) -> object:
    """Return the plain data that a pickle of protocol 0 to 5 describes.

    Raises:
        BadRequest: it is no pickle, is not plain data, or exceeds a limit.
    """
    data = bytes(message)
    if not is_small_and_plain(data):
        Examination(data, max_operations, max_expanded_bytes).proceed(max_operations)
    return unpickle(data)


class PlainReader:
    """Reads one message as `loads_plain` does, but can scan a long one in parts."""

    def __init__(self, message: bytes | bytearray | memoryview) -> None:
        """Begin to scan a copy of *message*."""
        self._data = bytes(message)
        self._examination = Examination(self._data, OPERATIONS_MAX, EXPANDED_BYTES_MAX)

    def proceed(self, until: float) -> bool:
        """Scan until the time *until* (by `time.perf_counter`); return whether the scan is complete.

        Raises:
            BadRequest: as `loads_plain`.
        """
        while not self._examination.proceed(_UNTIMED_OPERATIONS):
            if time.perf_counter() >= until:
                return False
        return True

    def read(self) -> object:
        """Return the data, after the scan is complete.

        Raises:
            BadRequest: as `loads_plain`.
        """
        return unpickle(self._data)


def unpickle(data: bytes) -> object:
    """Return the value of the pickle *data*, which has passed the scan."""
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except BadRequest:
        raise
    except Exception as error:  # noqa: BLE001  # a bad pickle may raise any exception
        raise BadRequest(f"the request cannot be unpickled: {type(error).__name__}: {error}") from None


class _PlainUnpickler(pickle.Unpickler):
    """A second defence: it finds no class or function for a pickle that passed the scan by mistake."""

    def find_class(self, module: str, name: str, /) -> NoReturn:
        raise BadRequest(f"the request names {module}.{name}; only plain data is read")

    def persistent_load(self, _pid: object, /) -> NoReturn:
        raise BadRequest("the request has a persistent id; only plain data is read")


def is_small_and_plain(data: bytes) -> bool:
    """Return whether a quick check shows that a request is harmless, as those of `put` and `get` are.

    With so few opcodes nothing nests too deep. Without references to the memo nothing is shared or contains
    itself. The other attacks need text opcodes or long counts, which are not allowed here. If the result is
    false, the request is not refused but scanned fully. The result may be true for a request that no pickler
    writes, as long as unpickling it is harmless too.
    """
    position = 0
    try:
        for _ in range(NESTING_MAX):
            operation = data[position]
            width = _WIDTHS[operation]
            if width:
                position += width
            elif operation in _COUNTED:
                position += 2 + data[position + 1]
            else:
                return operation == _STOP and position == len(data) - 1
    except IndexError:
        return False
    return False


_STOP = pickle.STOP[0]
_COUNTED = frozenset(pickle.SHORT_BINUNICODE + pickle.SHORT_BINBYTES + pickle.LONG1)
_FIXED = {
    1: (
        pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.MARK, pickle.MEMOIZE,
        pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE,
        pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS,
        pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS,
        pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET,
    ),
    2: (pickle.PROTO, pickle.BININT1, pickle.BINPUT),
    3: (pickle.BININT2,),
    5: (pickle.BININT,),
    9: (pickle.BINFLOAT, pickle.FRAME),
}  # fmt: skip
_WIDTH_OF = {code[0]: width for width, codes in _FIXED.items() for code in codes}
#: By opcode: the bytes of the opcode and its argument, or 0 if their number varies or it is not harmless.
_WIDTHS = bytes(_WIDTH_OF.get(code, 0) for code in range(256))
