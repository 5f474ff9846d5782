"""The durable journal: one SQLite file, one connection, one transaction for each turn of the loop.

Only this package uses SQLite. Beside the file `PATH` there are `PATH-wal` (SQLite's log: commits not yet
moved into the file), `PATH.mark` (how far it once reached, see `mark`), `PATH.large` (a directory with the
content of large rows, see `large rows`), `PATH.ballast` (room for acknowledgements on a full disk, see
`ballast`), `PATH.clock` (what the manager's clock showed last, see `clock_file`) and, while a manager serves
it, `PATH.owner` (which one, see `ownership`). They belong together: move or delete all of them or none.
`PATH.output` (the output of tasks, see `output_file`) is no part of the journal, and may be deleted.
"""

from svc.server.journal.form import APPLICATION_ID, SCHEMA_VERSION, require_sqlite, sqlite_release
from svc.server.journal.output_file import OUTPUT_SUFFIX, OutputFile
from svc.server.journal.store import SqliteJournal

__all__ = [
    "APPLICATION_ID",
    "OUTPUT_SUFFIX",
    "SCHEMA_VERSION",
    "OutputFile",
    "SqliteJournal",
    "require_sqlite",
    "sqlite_release",
]
