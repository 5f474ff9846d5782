"""What may be a name. Without msgspec, so that the command line can check its flags before it needs that."""

from __future__ import annotations

import re
from typing import Final

#: Characters of the name of a queue, a task or an origin, and of an idempotency key.
NAME_MAX: Final = 200
#: Characters of the name of a worker, a consumer or a host, of a codec, and of a backup's file name.
LABEL_MAX: Final = 255
#: Queues that one consumer serves.
QUEUES_MAX: Final = 1024

_ADDRESS = re.compile(r"(\[[0-9A-Za-z:.%_-]+\]|[0-9A-Za-z._-]+):[0-9]{1,5}")


def is_name(text: str) -> bool:
    """Return whether *text* may name something: 1 to `NAME_MAX` characters, all printable."""
    # What is not printable (a lone surrogate of a plain client's pickle) may not even be UTF-8.
    return 0 < len(text) <= NAME_MAX and text.isprintable()


def is_free_name(text: str) -> bool:
    """Return whether *text* may name a queue or a task of a client: names with `#` are the manager's own."""
    return is_name(text) and text[0] != "#"


def is_address(text: str) -> bool:
    """Return whether *text* is HOST:PORT."""
    return len(text) <= LABEL_MAX and _ADDRESS.fullmatch(text) is not None


def shown_name(text: str) -> str:
    """Return *text* as a name: its beginning, with `?` for what cannot be shown; empty if it is empty."""
    return "".join(each if each.isprintable() else "?" for each in text[:NAME_MAX])
