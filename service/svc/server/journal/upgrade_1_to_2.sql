-- From version 1: checksums and the number of rows. Rows that are there stay without a checksum until they go.
ALTER TABLE events ADD COLUMN crc INTEGER;
ALTER TABLE events ADD COLUMN total INTEGER;
UPDATE events SET total = (SELECT count(*) FROM events) WHERE seq = (SELECT max(seq) FROM events);
PRAGMA user_version = 2;
