-- Schema version 2: audit records of operators' actions.

CREATE TABLE audit(
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    operator  TEXT NOT NULL,
    -- The index in the list of actions, from 0.
    action    INTEGER NOT NULL,
    about     TEXT NOT NULL,
    dead_id   TEXT,
    source    TEXT,
    subject   TEXT,
    first     INTEGER,
    last      INTEGER,
    reason    TEXT,
    before    BLOB,
    after     BLOB,
    bytes     INTEGER NOT NULL
);
CREATE INDEX audit_about ON audit(about);

CREATE TABLE audit_totals(
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    rows       INTEGER NOT NULL DEFAULT 0,
    bytes      INTEGER NOT NULL DEFAULT 0,
    forgotten  INTEGER NOT NULL DEFAULT 0
);
INSERT INTO audit_totals(one) VALUES (1);
