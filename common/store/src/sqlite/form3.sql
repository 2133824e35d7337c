-- What form 3 of a role's store has that form 2 had not: trials of events that a process may have died of.
--
-- A row is there from just before the handler is asked until the commit of what came of it, or until the event is met again.
CREATE TABLE trials(
    source_id  INTEGER NOT NULL,
    event_id   TEXT NOT NULL,
    count      INTEGER NOT NULL,
    -- When it was last counted.
    time       INTEGER NOT NULL,
    PRIMARY KEY (source_id, event_id)
) WITHOUT ROWID;
CREATE INDEX trials_time ON trials(time);
