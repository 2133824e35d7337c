-- Schema version 4: replies to commands, and timers.

-- In the order of writing, which is nearly that of their times. The caller has no number, since callers come and go.
CREATE TABLE replies(
    number      INTEGER PRIMARY KEY,
    caller      TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    -- SHA-256 of the command's content.
    hash        BLOB NOT NULL,
    time        INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    reply       BLOB NOT NULL,
    UNIQUE (caller, request_id)
);
CREATE INDEX replies_time ON replies(time);

-- Timers, numbered in one series with `held`. The event has the id `scheduled-ID` and no sequence.
CREATE TABLE scheduled(
    id           INTEGER PRIMARY KEY,
    due          INTEGER NOT NULL,
    since        INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    source_id    INTEGER NOT NULL,
    type         TEXT NOT NULL,
    subject      TEXT NOT NULL,
    time,
    traceparent  TEXT,
    data         BLOB NOT NULL
);
CREATE INDEX scheduled_due ON scheduled(due);

ALTER TABLE totals ADD COLUMN replies_rows INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN replies_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN scheduled_rows INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN scheduled_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN obeyed INTEGER NOT NULL DEFAULT 0;
