"""Sends the output of tasks to the manager, in requests of its own beside the reports."""

from __future__ import annotations

import time
from typing import Final, Protocol

import structlog

from svc.broker.base import Broker
from svc.domain.commands import Output
from svc.errors import BadRequest, Forbidden

#: Seconds in which output gathers before it is sent.
OUTPUT_PAUSE: Final = 0.1
#: Seconds for the output that is left when the worker ends.
_LAST_SECONDS: Final = 2.0


class OutputSource(Protocol):
    """The output that is not sent yet."""

    def take(self) -> Output | None:
        """Return the next pieces, or None."""


class OutputSender:
    """Sends output; what a manager refuses is dropped, and asked no more of this one.

    Attributes:
        due: whether there may be output to send.
        outputs: the source of the output.
    """

    def __init__(self) -> None:
        """Send nothing until there are `outputs`."""
        self.due = False
        self.outputs: OutputSource | None = None
        #: Output that was sent and not answered: it is sent again over the next connection.
        self._unanswered: Output | None = None
        self._refused = False

    @property
    def pending(self) -> bool:
        """Whether output was read and is not sent."""
        return self.due or self._unanswered is not None

    def begin_anew(self) -> None:
        """Note that there is a new connection, perhaps to another release of the manager."""
        self._refused = False

    def send(self, broker: Broker) -> bool:
        """Send the next pieces; return whether there were any.

        Raises:
            ManagerUnreachable: the manager is away; the same pieces are sent the next time.
        """
        self.due = False
        if self.outputs is None:
            return False
        output = self._unanswered = self._unanswered or self.outputs.take()
        if output is None:
            return False
        if not self._refused:
            self._exchange(broker, output)
        self._unanswered = None
        # More may be left, or may come too fast to be sent at once.
        self.due = True
        return True

    def send_all(self, broker: Broker) -> None:
        """Send what is left, because the worker ends."""
        end = time.monotonic() + _LAST_SECONDS
        while self.send(broker) and time.monotonic() < end:
            pass

    def _exchange(self, broker: Broker, output: Output) -> None:
        try:
            broker.keep(output)
        except (BadRequest, Forbidden) as refusal:  # an earlier release does not know the command
            self._refused = True
            log = structlog.get_logger()
            log.warning("output_refused", error=str(refusal))
