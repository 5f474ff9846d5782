-- From version 2, and in a new file: the long texts of errors have tables of their own (broker/error_texts.py).
-- Rows that are there keep theirs.

-- Each text once. The digest is that of the text before it was compressed.
CREATE TABLE texts (
    id         INTEGER PRIMARY KEY,
    digest     BLOB NOT NULL UNIQUE,
    compressed INTEGER NOT NULL,
    body       BLOB NOT NULL
) STRICT;

-- Which rows of events name which texts, so that a text goes with the last row that names it.
CREATE TABLE text_uses (
    seq  INTEGER NOT NULL,
    text INTEGER NOT NULL,
    PRIMARY KEY (seq, text)
) STRICT, WITHOUT ROWID;
CREATE INDEX uses_of_text ON text_uses (text);

PRAGMA user_version = 3;
