"""The contract of a mirror: the journal on a manager's own disk that has the rows of a replicated one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from svc.broker.journal import Journal
from svc.server.journal.rows import EncodedRow


class Mirror(Journal):
    """A journal that also takes rows as they are in the frames of a stream."""

    @abstractmethod
    def append_encoded(self, encoded: Sequence[EncodedRow], forget: Sequence[int] = ()) -> None:
        """Do the same as `append` with events that are encoded."""
