-- The journal: what happened, in order. Read by service/server/journal.py, in one transaction.
-- To change it: raise user_version, keep the reader of the version before, and say so in CHANGELOG.md.

-- "svcq": tells this file from any other SQLite database.
PRAGMA application_id = 0x73766371;
PRAGMA user_version = 1;

-- One event of service/domain/events.py each, as MessagePack. The rowid is the sequence number, so that
-- appending always goes to the rightmost page.
CREATE TABLE events (
    seq  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

-- incarnation: how many times the journal was opened. created: Unix time in seconds.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta VALUES ('incarnation', 0), ('created', unixepoch());
