"""The rules for names.

This module does not need msgspec, so the command line can check its flags before it imports that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: Characters of the name of a queue, a task or an origin, and of an idempotency key.
NAME_MAX: Final = 200
#: Characters of the name of a worker, a consumer or a host, of a codec, and of a backup's file name.
LABEL_MAX: Final = 255
#: Queues that one consumer serves.
QUEUES_MAX: Final = 1024
#: The codecs of a job's arguments: data alone, and any Python object.
CODECS: Final = ("plain", "pickle")
#: The codec of data with extension types, which clients take in place of `plain` if they need it.
TYPED: Final = "typed"
#: The codec of data with large arguments, which are not in the body: likewise.
LARGE: Final = "large"

#: Names that are proposed in place of one that is not known.
_NEAR_MAX = 3
#: How alike a proposed name is at least: 1 for the same one.
_LIKENESS = 0.5
_ADDRESS = re.compile(r"(\[[0-9A-Za-z:.%_-]+\]|[0-9A-Za-z._-]+):(?P<port>[0-9]{1,5})")
_PORT_MAX = 65535


def is_name(text: str) -> bool:
    """Return whether *text* may name something: 1 to `NAME_MAX` characters, all printable."""
    # Text that is not printable (a lone surrogate in a plain client's pickle) may not even be UTF-8.
    return 0 < len(text) <= NAME_MAX and text.isprintable()


def are_printable(names: Iterable[str]) -> bool:
    """Return whether all of *names* can be shown; empty ones count as such."""
    return "".join(names).isprintable()


def is_free_name(text: str) -> bool:
    """Return whether *text* may be a client's name for a queue or a task; names with `#` are reserved."""
    return is_name(text) and text[0] != "#"


def is_address(text: str) -> bool:
    """Return whether *text* is HOST:PORT."""
    match = _ADDRESS.fullmatch(text) if len(text) <= LABEL_MAX else None
    return match is not None and int(match["port"]) <= _PORT_MAX


def shown_name(text: str) -> str:
    """Return *text* as a name: its beginning, with `?` for unprintable characters; "" if it is empty."""
    return "".join(each if each.isprintable() else "?" for each in text[:NAME_MAX])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that names the nearest of *known*; empty if none is near.

    Capital letters do not count, and the part of a task's name behind its colon is near to the whole.
    """
    import difflib  # only those who have made a mistake wait for it

    folded = {each.casefold(): each for each in sorted(known, reverse=True)}
    parts = {each.rpartition(":")[2]: each for each in reversed(folded)}
    wanted = name[:NAME_MAX].casefold()
    behind = difflib.get_close_matches(wanted.rpartition(":")[2], parts, _NEAR_MAX, _LIKENESS)
    if wanted.rpartition(":")[2] in parts:
        behind = behind[:1]  # the very same name in another module
    near = [parts[part] for part in behind] or difflib.get_close_matches(wanted, folded, _NEAR_MAX, _LIKENESS)
    return f"; did you mean {' or '.join(folded[each] for each in near)}?" if near else ""
