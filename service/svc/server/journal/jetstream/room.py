"""The room that the NATS servers have left for a journal, as they told it last, less what was sent since.

A stream whose servers have reached their limit takes nothing more, also no outcome and no purge: it stands
still until an operator gives it room. So new jobs are refused before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import structlog

from svc.server.journal.jetstream.log import Unanswered

#: Seconds from one question to the next; and if the servers do not tell, or refuse the question.
_ASK_SECONDS: Final = 2.0
_UNTOLD_SECONDS: Final = 60.0
#: Questions in a row without an answer after which a limit that was told once is taken to be gone.
_UNTOLD_MAX: Final = 30


def room_of(account: Mapping[str, Any], servers: Iterable[Mapping[str, Any]], all_servers: int) -> int | None:
    """Return the bytes of room, or None if nobody tells a limit.

    Args:
        account: the answer of JetStream with the limits of the account and its use.
        servers: the data with which servers have answered the question for their settings.
        all_servers: how many servers keep the stream. Most of them need room; a full one is done without.
    """
    limit = (account.get("limits") or {}).get("max_storage", -1)
    found = [limit - account.get("storage", 0)] if limit > 0 else []
    told = [each for each in servers if (each.get("config") or {}).get("max_storage", 0) > 0]
    rooms = sorted((each["config"]["max_storage"] - each.get("storage", 0) for each in told), reverse=True)
    needed = all_servers // 2 + 1
    if len(rooms) >= needed:
        found.append(rooms[needed - 1])
    return max(0, min(found)) if found else None


class RoomWatch:
    """Asks for the room again and again, and logs new risks; `left` may be called in any thread."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[int | None]],
        sent: Callable[[], int],
        risks: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """Ask by *ask*.

        Args:
            ask: returns the room.
            sent: returns the bytes that were sent so far.
            risks: returns what the servers have told with which they may lose writes; the log has it so far.
        """
        self._ask = ask
        self._sent = sent
        self._risks = risks
        self._logged = set(risks())
        self._log = structlog.get_logger("svc.manager")
        self._told: tuple[int, int] | None = None
        #: Questions in a row that nobody has answered with a limit.
        self._untold = 0

    def left(self) -> int | None:
        """Return the bytes of room; None if it is not known."""
        told = self._told
        return None if told is None else max(0, told[0] - (self._sent() - told[1]))

    async def run(self) -> None:
        """Ask until it is cancelled."""
        while True:
            sent = self._sent()
            try:
                room = await self._ask()
            except Unanswered:
                room = None
            self._note(room, sent)
            self._tell_risks()
            await asyncio.sleep(_UNTOLD_SECONDS if self._told is None else _ASK_SECONDS)

    def _tell_risks(self) -> None:
        for risk in self._risks():
            if risk not in self._logged:
                self._logged.add(risk)
                self._log.warning("journal_at_risk", reason=risk)

    def _note(self, room: int | None, sent: int) -> None:
        """Note an answer; without one the last figure holds on for a while: busy servers may be late."""
        self._untold = 0 if room is not None else self._untold + 1
        if room is not None:
            self._told = room, sent
        elif self._untold >= _UNTOLD_MAX:
            self._told = None
