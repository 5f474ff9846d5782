"""The kinds of consumers: the names of the queues, tasks and codecs by which they take jobs.

Each kind is kept once, however many consumers and rows of the roster have it, and all together are bounded:
a single hello may have ten thousand names, and there may be thousands of connections.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from svc.domain.scheduling.lanes import Subscription

#: Bytes of a name beside its characters: the text's own, and its places in sets.
NAME_BYTES: Final = 100
#: Bytes that the names of all kinds may take, about.
KINDS_BYTES: Final = 16 * 1024 * 1024
#: A kind of so few bytes is always taken: there are no more of these than connections.
SMALL_BYTES: Final = 2048


class Kinds:
    """The kinds in use, and earlier ones until there is no room.

    Attributes:
        size: the bytes of their names.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self.size = 0
        self._known: dict[Subscription, tuple[Subscription, int]] = {}

    def shared(self, kind: Subscription) -> Subscription:
        """Return *kind* as the object that all who have it share."""
        known = self._known.get(kind)
        if known is None:
            size = kind_bytes(kind)
            self.size += size
            known = self._known[kind] = kind, size
        return known[0]

    def has_room(self, kind: Subscription, in_use: Iterable[Subscription]) -> bool:
        """Return whether *kind* may be added to those *in_use*, which are looked at if room is short."""
        if kind in self._known:
            return True
        size = kind_bytes(kind)
        if self.size + size > KINDS_BYTES:
            self._known = {each: self._known[each] for each in in_use if each in self._known}
            self.size = sum(of_kind for _, of_kind in self._known.values())
        return size <= SMALL_BYTES or self.size + size <= KINDS_BYTES


def kind_bytes(kind: Subscription) -> int:
    """Return about how many bytes the names of *kind* take."""
    return sum(names_bytes(names) for names in kind if names)


def names_bytes(names: Iterable[str]) -> int:
    """Return about how many bytes *names* take."""
    return sum(NAME_BYTES + len(name) * (1 if name.isascii() else 4) for name in names)


def covers_all(subscription: Subscription, other: Subscription) -> bool:
    """Return whether a consumer with *subscription* takes all jobs that one with *other* takes."""
    return all(
        mine is None or (theirs is not None and mine >= theirs)
        for mine, theirs in zip(subscription, other, strict=True)
    )


def union(subscription: Subscription, other: Subscription) -> Subscription:
    """Return a subscription that covers both; it may cover more."""
    queues, tasks, codecs = other
    mine = subscription
    return (
        mine[0] | queues,
        None if mine[1] is None or tasks is None else mine[1] | tasks,
        None if mine[2] is None or codecs is None else mine[2] | codecs,
    )
