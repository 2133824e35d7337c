-- Schema version 3: crash counts of poison candidates.
--
-- A row exists from just before the handler gets the event until its result is committed, or until the event is delivered again.
CREATE TABLE trials(
    source_id  INTEGER NOT NULL,
    event_id   TEXT NOT NULL,
    count      INTEGER NOT NULL,
    -- The time of the last change.
    time       INTEGER NOT NULL,
    PRIMARY KEY (source_id, event_id)
) WITHOUT ROWID;
CREATE INDEX trials_time ON trials(time);
