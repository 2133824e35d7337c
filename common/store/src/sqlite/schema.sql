-- Schema version 1 of a role's store; the files of later versions add to it.
--
-- An ordinary batch writes little: streams and entities are updated by their row number, their keys are in tables of their own that are
-- written once, and no index contains a column that an ordinary update changes. `totals` assigns row numbers and never reuses one, so
-- that a handle to a deleted row can never denote another row.

CREATE TABLE store(
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    role        TEXT NOT NULL,
    source      TEXT NOT NULL,
    -- Incremented when a new source is minted: a process that opened the store before must not number under it.
    generation  INTEGER NOT NULL
);

CREATE TABLE totals(
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    commits        INTEGER NOT NULL DEFAULT 0,
    last_stream    INTEGER NOT NULL DEFAULT 0,
    last_entity    INTEGER NOT NULL DEFAULT 0,
    last_held      INTEGER NOT NULL DEFAULT 0,
    last_outbox    INTEGER NOT NULL DEFAULT 0,
    streams        INTEGER NOT NULL DEFAULT 0,
    entities       INTEGER NOT NULL DEFAULT 0,
    awaiting       INTEGER NOT NULL DEFAULT 0,
    held_rows      INTEGER NOT NULL DEFAULT 0,
    held_bytes     INTEGER NOT NULL DEFAULT 0,
    dead_rows      INTEGER NOT NULL DEFAULT 0,
    dead_bytes     INTEGER NOT NULL DEFAULT 0,
    seen_rows      INTEGER NOT NULL DEFAULT 0,
    seen_bytes     INTEGER NOT NULL DEFAULT 0,
    outbox_rows    INTEGER NOT NULL DEFAULT 0,
    outbox_bytes   INTEGER NOT NULL DEFAULT 0,
    applied        INTEGER NOT NULL DEFAULT 0,
    ignored        INTEGER NOT NULL DEFAULT 0,
    duplicates     INTEGER NOT NULL DEFAULT 0,
    held           INTEGER NOT NULL DEFAULT 0,
    dead           INTEGER NOT NULL DEFAULT 0,
    replayed       INTEGER NOT NULL DEFAULT 0,
    skipped        INTEGER NOT NULL DEFAULT 0
);
INSERT INTO totals(one) VALUES (1);

CREATE TABLE sources(
    id      INTEGER PRIMARY KEY,
    source  TEXT NOT NULL UNIQUE
);

CREATE TABLE stream_keys(
    source_id  INTEGER NOT NULL,
    subject    TEXT NOT NULL,
    id         INTEGER NOT NULL,
    PRIMARY KEY (source_id, subject)
) WITHOUT ROWID;

CREATE TABLE streams(
    id       INTEGER PRIMARY KEY,
    version  INTEGER NOT NULL,
    cursor   INTEGER NOT NULL,
    held     INTEGER NOT NULL,
    -- 1 stands for SUBJECT#CURSOR, the form of most ids.
    last_id,
    blocked  TEXT
);
CREATE INDEX streams_holding ON streams(id) WHERE held > 0;
CREATE INDEX streams_blocked ON streams(id) WHERE blocked IS NOT NULL;

CREATE TABLE entity_keys(
    key  TEXT PRIMARY KEY,
    id   INTEGER NOT NULL
) WITHOUT ROWID;

-- Version 1 means: an entity without a state.
CREATE TABLE entities(
    id       INTEGER PRIMARY KEY,
    version  INTEGER NOT NULL,
    state    BLOB
);

-- Times are nanoseconds since 1970, or text if they do not fit.
CREATE TABLE held(
    id           INTEGER PRIMARY KEY,
    -- Only an event with a sequence belongs to a stream.
    stream_id    INTEGER,
    sequence     INTEGER,
    due          INTEGER,
    since        INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    -- 0: waits for its predecessor, 1: waits for the entity in `about`, 2: replays the dead letter in `about`.
    reason       INTEGER NOT NULL,
    about        TEXT,
    defect       TEXT,
    event_id     TEXT NOT NULL,
    source_id    INTEGER NOT NULL,
    type         TEXT NOT NULL,
    subject      TEXT NOT NULL,
    time,
    traceparent  TEXT,
    data         BLOB NOT NULL
);
CREATE UNIQUE INDEX held_place ON held(stream_id, sequence) WHERE sequence IS NOT NULL;
CREATE INDEX held_due ON held(due) WHERE due IS NOT NULL;
CREATE INDEX held_since ON held(since);
CREATE INDEX held_awaiting ON held(about) WHERE reason = 1;

CREATE TABLE dead(
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    -- 0: open, 1: to be replayed, 2: replayed and waiting for another stream.
    status       INTEGER NOT NULL,
    blocks       INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    since        INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    fingerprint  TEXT NOT NULL,
    reason       TEXT NOT NULL,
    detail       TEXT NOT NULL,
    defect       TEXT,
    body         BLOB NOT NULL,
    -- The event; all NULL if the message could not be decoded.
    event_id     TEXT,
    source_id    INTEGER,
    type         TEXT,
    subject      TEXT,
    time,
    sequence     INTEGER,
    traceparent  TEXT,
    data         BLOB
);
CREATE INDEX dead_fingerprint ON dead(fingerprint);

CREATE TABLE seen(
    source_id  INTEGER NOT NULL,
    event_id   TEXT NOT NULL,
    time       INTEGER NOT NULL,
    PRIMARY KEY (source_id, event_id)
) WITHOUT ROWID;
CREATE INDEX seen_time ON seen(time);

CREATE TABLE outgoing(
    subject  TEXT PRIMARY KEY,
    last     INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE outbox(
    id           INTEGER PRIMARY KEY,
    -- NULL until the first failed attempt.
    due          INTEGER,
    attempts     INTEGER NOT NULL,
    since        INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    -- The dead letter of which this is a copy, with the copy's headers in JSON and its body in `data`; NULL for an event.
    dead_id      TEXT,
    headers      TEXT,
    event_id     TEXT,
    source_id    INTEGER,
    type         TEXT,
    subject      TEXT,
    time,
    sequence     INTEGER,
    traceparent  TEXT,
    data         BLOB NOT NULL
);
CREATE INDEX outbox_again ON outbox(due) WHERE due IS NOT NULL;
