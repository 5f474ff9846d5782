"""The times of the rules of leadership, which all follow from the TTL of the key (`leadership`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """The times of the rules, in seconds, all derived from the TTL of the bucket."""

    ttl: float = 3.0

    @property
    def renew_every(self) -> float:
        """The time from one renewal to the next, and between two writes of a standby."""
        return self.ttl / 6

    @property
    def answer_within(self) -> float:
        """The time that a request to the bucket may take."""
        return self.ttl / 6

    @property
    def margin(self) -> float:
        """The time before the end of the TTL at which a leader stops being valid: two clocks differ."""
        return self.ttl / 6

    @property
    def silence(self) -> float:
        """The time for which a successor has known the end of the log before it begins its term behind it.

        A leader that appends every quarter of it is valid. It is shorter than the rest of the life of a key
        after the death of its leader, which is at least five sixths of the TTL, so no takeover waits for it.
        """
        return self.ttl * 2 / 3

    @property
    def log_within(self) -> float:
        """The time after its last renewal for which the log alone keeps a leader valid.

        It is longer than an election of the bucket (up to 9 s) and the tries after it. A leader that reaches
        the log and not the bucket, while others reach both, does not keep them waiting for ever.
        """
        return self.ttl * 4

    @property
    def contested_after(self) -> float:
        """The time after which a leader that writes on without the key has another bucket.

        In the bucket of its successor it is not valid any more, and so has nothing to write.
        """
        return self.log_within + self.ttl

    @property
    def append_after(self) -> float:
        """The time without a renewal or an append after which a leader that fails to renew appends.

        With the longest step of a leader, a request without an answer and a pause, it is less than half of
        the time for which an append keeps a leader valid.
        """
        return self.ttl / 20

    @property
    def look_every(self) -> float:
        """The time from one look of a standby at the key to the next."""
        return self.ttl / 20

    @property
    def retry_after(self) -> float:
        """The pause after a request that failed."""
        return self.ttl / 30

    @property
    def gap(self) -> float:
        """The time between two writes of a standby above which the bucket has had a fault."""
        return self.ttl / 2

    @property
    def steady(self) -> float:
        """The time for which the bucket must have been without a gap before a key that is gone is taken."""
        return self.ttl

    @property
    def held_back(self) -> float:
        """The time for which a manager that has handed over does not take the key again."""
        return self.ttl * 2

    @property
    def taken_within(self) -> float:
        """The time within which a standby that lives takes a free key: several looks of it."""
        return self.ttl / 3

    @property
    def release_within(self) -> float:
        """The time after which a manager that cannot mark the key as free lets it vanish instead."""
        return self.ttl
