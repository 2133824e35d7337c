-- Schema version 6: tasks, the processes that run them, and the dead letters made of them.

-- Live tasks, numbered by `totals`. Large columns are last: SQLite reads a row up to the last column that it needs.
CREATE TABLE tasks(
    number       INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    kind         TEXT NOT NULL,
    subject      TEXT NOT NULL,
    traceparent  TEXT,
    since        INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    -- 0: ready, 1: running, 2: unknown.
    state        INTEGER NOT NULL,
    -- 0: none, 1: cancel, 2: settle as done, 3: settle as failed.
    directive    INTEGER NOT NULL,
    due          INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    crashes      INTEGER NOT NULL,
    -- The number of dead letters made of it.
    dead         INTEGER NOT NULL,
    -- The lease of a running task; NULL otherwise.
    token        INTEGER,
    holder       TEXT,
    claimed      INTEGER,
    done         INTEGER NOT NULL,
    total        INTEGER NOT NULL,
    -- The highest `done` ever.
    reached      INTEGER NOT NULL,
    note         TEXT,
    error        TEXT,
    checkpoint   BLOB
);
CREATE INDEX tasks_fresh ON tasks(kind, due) WHERE state = 0 AND directive = 0 AND crashes = 0;
CREATE INDEX tasks_candidates ON tasks(kind, due) WHERE state = 0 AND directive = 0 AND crashes > 0;
CREATE INDEX tasks_directed ON tasks(number) WHERE state = 0 AND directive > 0;
CREATE INDEX tasks_holder ON tasks(holder) WHERE state = 1;
CREATE INDEX tasks_kind ON tasks(kind, state, since);

-- Inputs have a table of their own: a change of a task would write its input again.
CREATE TABLE task_inputs(
    number  INTEGER PRIMARY KEY,
    input   BLOB NOT NULL
);

-- The processes that run tasks. Heartbeats and tokens are numbered in one series.
CREATE TABLE task_holders(
    holder   TEXT PRIMARY KEY,
    beat     INTEGER NOT NULL,
    renewed  INTEGER NOT NULL,
    process  TEXT NOT NULL
) WITHOUT ROWID;

ALTER TABLE totals ADD COLUMN last_task INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN last_token INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN tasks_rows INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN tasks_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN tasks_done INTEGER NOT NULL DEFAULT 0;

-- The id of the task that failed; NULL for an event.
ALTER TABLE dead ADD COLUMN task TEXT;
