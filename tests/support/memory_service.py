"""A manager with its journal in memory, which tells at its orderly end what it has kept.

`python -m tests.support.memory_service FILE manager …` is `svc manager …` with such an end.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from svc.broker import journal
from svc.cli import main as svc
from svc.domain.events import AnyEvent
from svc.server.journal.rows import EncodedRow, decode_event, encoded_rows
from tests.support.processes import Service


class MemoryService(Service):
    """The same with `--durability memory`; its records can be read once the manager has ended in order."""

    def start_manager(
        self,
        *flags: str,
        wait: bool = True,
        prefix: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        module: tuple[str, ...] = (),
    ) -> None:
        module = ("tests.support.memory_service", str(self._told))
        flags = (*flags, "--durability", "memory")
        super().start_manager(*flags, wait=wait, prefix=prefix, environment=environment, module=module)

    def own_records(self) -> Iterator[AnyEvent]:
        """Yield all events of the manager, which has ended in order."""
        rows = msgspec.msgpack.decode(self._told.read_bytes(), type=list[EncodedRow])
        for _, body in rows:
            yield decode_event(body)

    @property
    def _told(self) -> Path:
        return self.folder / "journal.told"


class ToldJournal(journal.MemoryJournal):
    """A journal in memory that writes its rows to a file when it is closed."""

    file: Path

    def close(self) -> None:
        if not self._closed:
            self.file.write_bytes(msgspec.msgpack.encode(encoded_rows(self.replay())))
        super().close()


if __name__ == "__main__":
    ToldJournal.file = Path(sys.argv.pop(1))
    vars(journal)["MemoryJournal"] = ToldJournal
    svc()
