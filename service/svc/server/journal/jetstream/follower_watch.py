"""Shows to followers of a leader's log that are no standbys of its own that it lives.

Managers whose buckets differ do not see each other's key, so each of them leads in its own. The fence lets
only one of them write: the one that began its term last. A manager begins a term once the log is silent. So a
leader that is followed by more clients than it knows standbys lets no silence come up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from svc.errors import JournalError
from svc.server.journal.jetstream.log import LogFacts, Unanswered

#: Seconds from one look to the next: a quarter of the silence for which a takeover waits.
LOOK_SECONDS: Final = 0.5


class FollowerWatch:
    """Looks at the log of a leader again and again; used by the log's loop."""

    def __init__(
        self,
        facts: Callable[[], Awaitable[LogFacts]],
        last: Callable[[], int],
        known: Callable[[], float],
        append: Callable[[], object],
    ) -> None:
        """Look by *facts*.

        Args:
            facts: returns the state of the log.
            last: returns the number of the last message that this leader has written.
            known: returns how many followers are standbys of this leader.
            append: appends an empty commit unless a frame is under way.
        """
        self._facts = facts
        self._last = last
        self._known = known
        self._append = append

    async def run(self) -> None:
        """Look until it is cancelled."""
        while True:
            with suppress(Unanswered, JournalError):  # the next append tells the fault
                self.note(await self._facts())
            await asyncio.sleep(LOOK_SECONDS)

    def note(self, facts: LogFacts) -> None:
        """Append if a stranger follows the log, or has written it: by the fence we learn that we are deposed.

        An idle leader would not notice before its next commit, and grant jobs that its successor grants too.
        """
        if facts.followers > self._known() or facts.last > self._last():
            self._append()
