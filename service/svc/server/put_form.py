"""The form in which CPython pickles `tasks.put(item)`: only the bytes of the item itself differ.

Such a request is most of the work of a producer's connection. So the bytes around the item are compared, and
only those of the item are scanned and unpickled.
"""

from __future__ import annotations

import pickle
from typing import Final

from svc.errors import BadRequest
from svc.server.pickle_scan import is_small_and_plain, unpickle

#: Stands for "no put of one item": None is an item.
NO_PUT: Final = object()
#: The most bytes of such a request.
_BYTES_MAX = 2048
# MARK, the name of the object and that of the method, each with its note in the memo; behind the item a tuple
# of one, an empty dict and the tuple of all four. So protocol 4 and 5 write it (CPython 3.8 and later).
_HEAD = b"(\x8c\x05tasks\x94\x8c\x03put\x94"
_TAIL = b"\x85\x94}\x94t\x94."
#: The opcodes of the protocol and of the frame, with the frame's length, are before the head.
_BEGIN = len(pickle.PROTO) + 1 + len(pickle.FRAME) + 8
_ITEM = _BEGIN + len(_HEAD)
_END = -len(_TAIL)
_FRAMED = (b"\x80\x04\x95", b"\x80\x05\x95")


def item_of(request: bytes) -> object:
    """Return the item that *request* puts into `tasks`.

    `NO_PUT` if it is another request, has another form or an item that is not small; it may be valid even so.
    """
    if (
        len(request) > _BYTES_MAX
        or not request.startswith(_HEAD, _BEGIN)
        or not request.endswith(_TAIL)
        or not request.startswith(_FRAMED)
    ):
        return NO_PUT
    # The item is a whole pickle of its own: what a quick check lets pass does not refer to the memo.
    item = request[_ITEM:_END] + pickle.STOP
    if not is_small_and_plain(item):
        return NO_PUT
    try:
        return unpickle(item)
    except BadRequest:
        return NO_PUT
