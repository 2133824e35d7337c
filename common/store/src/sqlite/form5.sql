-- What form 5 of a role's store has that form 4 had not.

-- Epochs. Of the store's own, the newest 1,000; the latest of them stands in `store`, which each commit reads.
CREATE TABLE own_epochs(
    counter  INTEGER PRIMARY KEY,
    -- 64 random bits.
    random   INTEGER NOT NULL,
    since    INTEGER NOT NULL
);
ALTER TABLE store ADD COLUMN epoch INTEGER;
ALTER TABLE store ADD COLUMN epoch_random INTEGER;
-- Since when, and by what, the store counts as restored; NULL where it does not.
ALTER TABLE store ADD COLUMN restored_since INTEGER;
ALTER TABLE store ADD COLUMN restored_detail TEXT;
-- Of an event, NULL where it has none.
ALTER TABLE outbox ADD COLUMN epoch INTEGER;
ALTER TABLE outbox ADD COLUMN epoch_random INTEGER;
ALTER TABLE held ADD COLUMN epoch INTEGER;
ALTER TABLE held ADD COLUMN epoch_random INTEGER;
ALTER TABLE dead ADD COLUMN epoch INTEGER;
ALTER TABLE dead ADD COLUMN epoch_random INTEGER;

-- The latest times of seen ids and of replies that were pruned; NULL where none were.
ALTER TABLE totals ADD COLUMN seen_pruned_to INTEGER;
ALTER TABLE totals ADD COLUMN replies_pruned_to INTEGER;
-- Of each source that the role consumes, the newest 1,000.
CREATE TABLE source_epochs(
    source_id  INTEGER NOT NULL,
    counter    INTEGER NOT NULL,
    random     INTEGER NOT NULL,
    -- 0: in line, 1: late, 2: of another lineage.
    standing   INTEGER NOT NULL,
    PRIMARY KEY (source_id, counter, random)
) WITHOUT ROWID;
-- Of the event at the cursor, with the first sequence that was applied under it; negative where a gap before that was stepped over.
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

-- The owner of each source: the user of the broker whose events are accepted. A source that is known from before belongs to nobody,
-- since its events came without a user id.
CREATE TABLE source_owners(
    source_id    INTEGER PRIMARY KEY,
    version      INTEGER NOT NULL,
    -- NULL: nobody.
    user         TEXT,
    since        INTEGER NOT NULL,
    -- 0: there was no owner before, 1: nobody, 2: the user in `former_user`.
    former       INTEGER NOT NULL,
    former_user  TEXT
);
INSERT INTO source_owners(source_id, version, user, since, former)
    SELECT source_id, 1, NULL, CAST(strftime('%s', 'now') AS INTEGER) * 1000000000, 0
    FROM (SELECT source_id FROM stream_keys UNION SELECT source_id FROM seen);
-- Dead letters that belong to no stream: their bytes as they are counted, 0 for all others; how many there are, and how many went to
-- the overflow file, of which how many are gone with it.
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
