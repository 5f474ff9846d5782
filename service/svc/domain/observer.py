"""The interface through which the queue and its host report events; telemetry overrides its methods.

Every method here does nothing, so a queue without telemetry needs no special case. The manager's only thread
calls them, once for each chunk and never once for each job. Implementations must be fast: they only add up
numbers. Only `counted` and `measured` name a metric: what needs no method of its own is counted with them.
"""

from __future__ import annotations

from collections.abc import Sequence

from svc.domain.job import Cause, Terms


class Observer:
    """Receives one call for each transition of the life cycle, and for the measurements of the host."""

    def submitted(self, terms: Terms, count: int, size: int) -> None:
        """*count* jobs of *size* bytes together were accepted."""

    def rejected(self, queue: str, reason: str, count: int) -> None:
        """Jobs were refused; *reason* is the code of an error, *queue* is empty if no such queue is known."""

    def refused(self, kind: str, role: str) -> None:
        """A connection or a request was refused; *kind* is an error's code, *role* that of the peer's key."""

    def started(self, terms: Terms, count: int, waited: float) -> None:
        """Jobs were handed to a consumer, *waited* seconds after they became ready."""

    def succeeded(self, terms: Terms, seconds: Sequence[float], age: float) -> None:
        """Attempts ended with results after these run times; the jobs were accepted *age* seconds ago."""

    def failed(
        self, terms: Terms, cause: Cause, error_type: str, seconds: float, retried: bool, age: float
    ) -> None:
        """An attempt ended without a result; *retried* or dead."""

    def released(self, terms: Terms, count: int) -> None:
        """Jobs went back uncharged: drain, scale-in, or read ahead and taken back."""

    def expired(self, terms: Terms, count: int) -> None:
        """Jobs went back because their holder's connection or lease had ended."""

    def cancelled(self, terms: Terms, count: int) -> None:
        """Waiting jobs were cancelled."""

    def requeued(self, terms: Terms, count: int) -> None:
        """Dead jobs were made ready again."""

    def purged(self, terms: Terms, count: int) -> None:
        """Jobs that had ended were removed on request."""

    def stale(self, queue: str, count: int) -> None:
        """Outcomes were refused because their lease had ended or moved to another member."""

    def committed(self, records: int, seconds: float) -> None:
        """The journal committed *records* events in *seconds*."""

    def turned(self, seconds: float) -> None:
        """One turn of the manager's loop took *seconds*, in which no other request was served."""

    def called(self, method: str, result: str, seconds: float) -> None:
        """A request was served; result is `ok`, `error` or `denied`."""

    def longest_turn(self, processor_seconds: float, part: str, role: str) -> None:
        """The turn just reported took the most processor time so far, *part* of a *role*'s key most of it."""

    def counted(self, metric: str, *labels: str, by: int = 1) -> None:
        """Add *by* to the counter or gauge *metric* of the catalogue, with these values of its labels.

        Any thread may call this. An event of the life cycle has its own method instead.
        """

    def measured(self, metric: str, value: float, *labels: str) -> None:
        """Set the gauge *metric* of the catalogue; see `counted`."""
