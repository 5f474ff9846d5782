-- The journal: what happened, in order. Read by service/svc/server/journal/form.py, in one transaction.
-- This is version 2; the steps from there on (upgrade_2_to_3.sql, ...) are taken in a new file too.
-- To change it: add a step that raises user_version, raise SCHEMA_VERSION in form.py, and say so in CHANGELOG.md.

-- "svcq": tells this file from any other SQLite database.
PRAGMA application_id = 0x73766371;
PRAGMA user_version = 2;

-- One event of service/svc/domain/events.py each, as MessagePack. The rowid is the sequence number, so that
-- appending always goes to the rightmost page. The newest row is never deleted.
CREATE TABLE events (
    seq   INTEGER PRIMARY KEY,
    body  BLOB NOT NULL,
    -- CRC-32 of the body, begun with the lower 32 bits of seq; NULL in rows that version 1 wrote.
    crc   INTEGER,
    -- In the newest row: how many rows there are. Older ones keep what was true when they were the newest.
    total INTEGER
) STRICT;

-- incarnation: how many times the journal was opened. created: Unix time in seconds.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta VALUES ('incarnation', 0), ('created', unixepoch());
