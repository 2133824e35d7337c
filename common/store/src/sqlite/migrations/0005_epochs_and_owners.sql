-- Schema version 5: epochs, restored stores, pruning marks, owners of sources, bounds of dead letters without a stream.

-- The newest 1,000 of the store's own epochs. `store`, which each commit reads, has a copy of the latest.
CREATE TABLE own_epochs(
    counter  INTEGER PRIMARY KEY,
    -- 64 random bits.
    random   INTEGER NOT NULL,
    since    INTEGER NOT NULL
);
ALTER TABLE store ADD COLUMN epoch INTEGER;
ALTER TABLE store ADD COLUMN epoch_random INTEGER;
-- Time and evidence of a restored store; NULL for others.
ALTER TABLE store ADD COLUMN restored_since INTEGER;
ALTER TABLE store ADD COLUMN restored_detail TEXT;
-- The epoch of an event; NULL if it has none.
ALTER TABLE outbox ADD COLUMN epoch INTEGER;
ALTER TABLE outbox ADD COLUMN epoch_random INTEGER;
ALTER TABLE held ADD COLUMN epoch INTEGER;
ALTER TABLE held ADD COLUMN epoch_random INTEGER;
ALTER TABLE dead ADD COLUMN epoch INTEGER;
ALTER TABLE dead ADD COLUMN epoch_random INTEGER;

-- The latest times of pruned seen ids and replies; NULL if none were pruned.
ALTER TABLE totals ADD COLUMN seen_pruned_to INTEGER;
ALTER TABLE totals ADD COLUMN replies_pruned_to INTEGER;
-- The newest 1,000 epochs of each source that the role consumes.
CREATE TABLE source_epochs(
    source_id  INTEGER NOT NULL,
    counter    INTEGER NOT NULL,
    random     INTEGER NOT NULL,
    -- 0: in line, 1: late, 2: of another lineage.
    standing   INTEGER NOT NULL,
    PRIMARY KEY (source_id, counter, random)
) WITHOUT ROWID;
-- The epoch of the event at the cursor, with the first sequence applied under it; negative if a gap before that was skipped.
ALTER TABLE streams ADD COLUMN epoch INTEGER;
ALTER TABLE streams ADD COLUMN epoch_random INTEGER;
ALTER TABLE streams ADD COLUMN epoch_from INTEGER;
-- Sources found to be restored or copied, until an operator accepts them; at most 100.
CREATE TABLE restored_sources(
    source        TEXT PRIMARY KEY,
    since         INTEGER NOT NULL,
    last          INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    epoch_random  INTEGER NOT NULL,
    conflicts     INTEGER NOT NULL
) WITHOUT ROWID;

-- The owner of each source: the broker user whose events are accepted. A source known from before has no owner, since its events came
-- without a user id.
CREATE TABLE source_owners(
    source_id    INTEGER PRIMARY KEY,
    version      INTEGER NOT NULL,
    -- NULL: no owner.
    user         TEXT,
    since        INTEGER NOT NULL,
    -- 0: there was no former owner, 1: its events came without a user id, 2: the user in `former_user`.
    former       INTEGER NOT NULL,
    former_user  TEXT
);
INSERT INTO source_owners(source_id, version, user, since, former)
    SELECT source_id, 1, NULL, CAST(strftime('%s', 'now') AS INTEGER) * 1000000000, 0
    FROM (SELECT source_id FROM stream_keys UNION SELECT source_id FROM seen);
-- Dead letters that belong to no stream: their counted bytes (0 for all others), their number, the number written to overflow files, and
-- the number of those whose file was deleted.
ALTER TABLE dead ADD COLUMN streamless INTEGER NOT NULL DEFAULT 0;
UPDATE dead SET streamless = bytes WHERE blocks = 0 AND sequence IS NULL;
CREATE INDEX dead_streamless ON dead(fingerprint, streamless) WHERE streamless > 0;
CREATE TABLE streamless(
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    rows        INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    overflowed  INTEGER NOT NULL DEFAULT 0,
    dropped     INTEGER NOT NULL DEFAULT 0
);
INSERT INTO streamless(one, rows, bytes)
    SELECT 1, count(*), coalesce(sum(streamless), 0) FROM dead WHERE streamless > 0;
