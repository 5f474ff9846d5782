"""The interface through which the queue and its host report events; telemetry overrides its methods.

Every method here does nothing, so a queue without telemetry needs no special case. The manager's only thread
calls them, once for each chunk and never once for each job. Implementations must be fast: they only add up
numbers.
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

    def stale(self, queue: str, count: int) -> None:
        """Outcomes were refused because their lease had ended or moved to another member."""

    def committed(self, records: int, seconds: float) -> None:
        """The journal committed *records* events in *seconds*."""

    def turned(self, seconds: float) -> None:
        """One turn of the manager's loop took *seconds*, in which no other request was served."""

    def memory(self, used: int, limit: int, scarce: bool) -> None:
        """The process has *used* of *limit* bytes of memory; new jobs are refused if that is *scarce*."""

    def called(self, method: str, result: str, seconds: float) -> None:
        """A request was served; result is `ok`, `error` or `denied`."""

    def longest_turn(self, processor_seconds: float, part: str, role: str) -> None:
        """The turn just reported took the most processor time so far, *part* of a *role*'s key most of it."""

    def refused(self, kind: str, role: str) -> None:
        """A request or a connection was refused; *role* is that of its key, "" if it had no key."""

    def connected(self, delta: int) -> None:
        """An authenticated connection came (+1) or went (-1)."""

    def authentication_failed(self) -> None:
        """A handshake was refused."""

    def recovered(self, jobs: int, seconds: float) -> None:
        """The journal was replayed, at the start or in place."""

    def broke(self, place: str) -> None:
        """A fault of svc itself occurred at *place*, one of `svc.broker.broken.Place`."""
