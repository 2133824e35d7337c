-- A store of the role `payments` as a program of schema version 5 has written it, with rows in every table.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE audit(
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    operator  TEXT NOT NULL,
    -- The place in the list of actions, counted from 0.
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
INSERT INTO "audit" VALUES(1,1796020968305468983,'ada@shop',1,'db0170d0b4814270','db0170d0b4814270-1',NULL,NULL,NULL,NULL,'of no use',X'72756262697368',NULL,122);
CREATE TABLE audit_totals(
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    rows       INTEGER NOT NULL DEFAULT 0,
    bytes      INTEGER NOT NULL DEFAULT 0,
    forgotten  INTEGER NOT NULL DEFAULT 0
);
INSERT INTO "audit_totals" VALUES(1,1,122,0);
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
    -- The event, all NULL where the message could not be read as one.
    event_id     TEXT,
    source_id    INTEGER,
    type         TEXT,
    subject      TEXT,
    time,
    sequence     INTEGER,
    traceparent  TEXT,
    data         BLOB
, epoch INTEGER, epoch_random INTEGER, streamless INTEGER NOT NULL DEFAULT 0);
INSERT INTO "dead" VALUES(1,'92b1e670ccd31dc7-1',0,1,1,1796020954224542203,226,'d2a4f04c274b6fa9','breaks its contract','data does not fit: expected value at line 1 column 7',NULL,X'7B226279223A317D','order/bad#1',3,'order.cancelled.v1','order/bad',1796014800000000000,1,NULL,X'7B226279223A317D',NULL,NULL,0);
INSERT INTO "dead" VALUES(3,'d0bf7492e362d083-1',0,0,1,1796020954224542203,318,'a0f6045f3f1acd85','unreadable','header cloudEvents:id is missing; header cloudEvents:source is missing; header cloudEvents:subject is missing; header cloudEvents:type is missing; header cloudEvents:specversion is missing; its headers: {"exchange":"doorstep.events","routing_key":"order.placed.v1"}',NULL,X'727562626973682032',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,318);
INSERT INTO "dead" VALUES(4,'fork-1',0,0,0,1767225602000000000,151,'fork','unreadable','no JSON',NULL,X'6A756E6B','order/five#1',3,'order.placed.v1','order/five',1767225602000000000,1,NULL,X'7B22746F74616C223A22312E3130227D',7,-6973142138912186246,0);
INSERT INTO "dead" VALUES(5,'five-1',0,0,0,1767225602000000000,29,'f5','unreadable','no JSON',NULL,X'6A756E6B',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,29);
CREATE TABLE entities(
    id       INTEGER PRIMARY KEY,
    version  INTEGER NOT NULL,
    state    BLOB
);
INSERT INTO "entities" VALUES(1,4,X'7B226F726465725F737461747573223A22656E646564222C227061796D656E74223A7B22737461747573223A22726566756E646564222C22637573746F6D6572223A22616461222C22616D6F756E74223A2231392E3030222C22617574686F72697A65645F756E74696C223A22323032362D31322D30315430363A34323A32302E31313437313931325A227D7D');
INSERT INTO "entities" VALUES(2,3,X'7B2262616C616E6365223A22302E3030222C22706F7374696E6773223A327D');
INSERT INTO "entities" VALUES(3,3,X'7B2262616C616E6365223A22302E3030222C22706F7374696E6773223A327D');
INSERT INTO "entities" VALUES(4,3,X'7B2262616C616E6365223A22302E3030222C22706F7374696E6773223A327D');
INSERT INTO "entities" VALUES(5,1,NULL);
CREATE TABLE entity_keys(
    key  TEXT PRIMARY KEY,
    id   INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "entity_keys" VALUES('account/cards',2);
INSERT INTO "entity_keys" VALUES('account/held',3);
INSERT INTO "entity_keys" VALUES('account/sales',4);
INSERT INTO "entity_keys" VALUES('payment/01a22b30ad3577a5862115109987add9',1);
INSERT INTO "entity_keys" VALUES('payment/gap',5);
CREATE TABLE held(
    id           INTEGER PRIMARY KEY,
    -- Only what has a sequence has a place in a stream.
    stream_id    INTEGER,
    sequence     INTEGER,
    due          INTEGER,
    since        INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    -- 0: behind its predecessor, 1: awaits the entity in `about`, 2: replays the dead letter in `about`.
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
, epoch INTEGER, epoch_random INTEGER);
INSERT INTO "held" VALUES(2,2,3,NULL,1796020954224542203,0,167,0,NULL,NULL,'order/gap#3',3,'order.confirmed.v1','order/gap',1796014800000000000,NULL,X'7B2272657374617572616E74223A20226C75696769222C202270726F6D697365645F6174223A2022323032362D31312D33305431323A30303A30305A227D',NULL,NULL);
INSERT INTO "held" VALUES(3,3,2,NULL,1796020954224542203,0,122,0,NULL,NULL,'order/bad#2',3,'order.cancelled.v1','order/bad',1796014800000000000,NULL,X'7B226279223A22637573746F6D6572227D',NULL,NULL);
INSERT INTO "held" VALUES(4,NULL,NULL,1796020999000000000,1796020954224542203,1,100,1,'payment/gap',NULL,'late',3,'order.cancelled.v1','order/late',1796014800000000000,NULL,X'7B7D',NULL,NULL);
INSERT INTO "held" VALUES(5,4,3,NULL,1767225602000000000,0,120,0,NULL,NULL,'order/five#3',3,'order.placed.v1','order/five',1767225602000000000,NULL,X'7B22746F74616C223A22312E3130227D',7,-6973142138912186246);
CREATE TABLE outbox(
    id           INTEGER PRIMARY KEY,
    -- NULL until it was tried in vain.
    due          INTEGER,
    attempts     INTEGER NOT NULL,
    since        INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    -- The dead letter of which this is a copy, with the copy's headers in JSON and its body in `data`; otherwise an event.
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
, epoch INTEGER, epoch_random INTEGER);
INSERT INTO "outbox" VALUES(7,NULL,0,1796020954224542203,200,NULL,NULL,'payment/01a22b30ad3577a5862115109987add9#3',1,'payment.refunded.v1','payment/01a22b30ad3577a5862115109987add9',1796020954224542203,3,NULL,X'7B22616D6F756E74223A2231392E3030227D',NULL,NULL);
INSERT INTO "outbox" VALUES(8,1796020984224542203,5,1796020954224542203,300,'92b1e670ccd31dc7-1','{"doorstep-reason":"breaks its contract"}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,X'7B226279223A317D',NULL,NULL);
INSERT INTO "outbox" VALUES(9,NULL,0,1767225602000000000,166,NULL,NULL,'payment/five#1',1,'order.placed.v1','payment/five',1767225602000000000,1,NULL,X'7B22746F74616C223A22312E3130227D',1,512079687782682115);
CREATE TABLE outgoing(
    subject  TEXT PRIMARY KEY,
    last     INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "outgoing" VALUES('payment/01a22b30ad3577a5862115109987add9',3);
INSERT INTO "outgoing" VALUES('payment/five',1);
CREATE TABLE own_epochs(
    counter  INTEGER PRIMARY KEY,
    -- 64 random bits.
    random   INTEGER NOT NULL,
    since    INTEGER NOT NULL
);
INSERT INTO "own_epochs" VALUES(1,512079687782682115,1767225601000000000);
CREATE TABLE replies(
    number      INTEGER PRIMARY KEY,
    caller      TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    -- SHA-256 of what was asked.
    hash        BLOB NOT NULL,
    time        INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    reply       BLOB NOT NULL,
    UNIQUE (caller, request_id)
);
INSERT INTO "replies" VALUES(1,'gateway/01a22b30-a25f-7722-8400-2509b2f82772','01a22b30ad3577a5862115109987add9/authorize',X'E958285C7C1138441745DDBF59BF18B1A303E5E990BB1FAA8DF05BB7910129F2',1796020940114719120,202,X'7B22617574686F72697A65645F756E74696C223A22323032362D31322D30315430363A34323A32302E31313437313931325A227D');
CREATE TABLE restored_sources(
    source        TEXT PRIMARY KEY,
    since         INTEGER NOT NULL,
    last          INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    epoch_random  INTEGER NOT NULL,
    conflicts     INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "restored_sources" VALUES('lab',1767225602000000000,1767225602000000000,7,-6973142138912186246,1);
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
INSERT INTO "scheduled" VALUES(1,1796021840114719120,1796020940114719120,182,1,'payment.lapse_due.v1','payment/01a22b30ad3577a5862115109987add9',1796021840114719120,NULL,X'7B7D');
CREATE TABLE seen(
    source_id  INTEGER NOT NULL,
    event_id   TEXT NOT NULL,
    time       INTEGER NOT NULL,
    PRIMARY KEY (source_id, event_id)
) WITHOUT ROWID;
INSERT INTO "seen" VALUES(4,'2a4c368983df00b8134c8fdbec127f4cf9c509668c6e4ba8506172f2c1cb7e39',1796020954224542203);
INSERT INTO "seen" VALUES(4,'71ca7d932e5a9bea82b11425bc83d474727bb94ecde72145e063f8b23b176ea3',1796020954224542203);
CREATE TABLE source_epochs(
    source_id  INTEGER NOT NULL,
    counter    INTEGER NOT NULL,
    random     INTEGER NOT NULL,
    -- 0: in line, 1: late, 2: of another lineage.
    standing   INTEGER NOT NULL,
    PRIMARY KEY (source_id, counter, random)
) WITHOUT ROWID;
INSERT INTO "source_epochs" VALUES(3,7,-6973142138912186246,0);
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
INSERT INTO "source_owners" VALUES(2,1,NULL,1796066398000000000,0,NULL);
INSERT INTO "source_owners" VALUES(3,2,'lab-user',1767225602000000000,1,NULL);
INSERT INTO "source_owners" VALUES(4,1,NULL,1796066398000000000,0,NULL);
CREATE TABLE sources(
    id      INTEGER PRIMARY KEY,
    source  TEXT NOT NULL UNIQUE
);
INSERT INTO "sources" VALUES(1,'payments/01a22b30-a24b-73fd-a5f8-31fb2675245a');
INSERT INTO "sources" VALUES(2,'gateway/01a22b30-a25f-7722-8400-2509b2f82772');
INSERT INTO "sources" VALUES(3,'lab');
INSERT INTO "sources" VALUES(4,'unreadable');
CREATE TABLE store(
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    role        TEXT NOT NULL,
    source      TEXT NOT NULL,
    -- Raised when a new source is minted: whoever had the store open before must not number under it.
    generation  INTEGER NOT NULL
, epoch INTEGER, epoch_random INTEGER, restored_since INTEGER, restored_detail TEXT);
INSERT INTO "store" VALUES(1,'payments','payments/01a22b30-a24b-73fd-a5f8-31fb2675245a',1,1,512079687782682115,NULL,NULL);
CREATE TABLE stream_keys(
    source_id  INTEGER NOT NULL,
    subject    TEXT NOT NULL,
    id         INTEGER NOT NULL,
    PRIMARY KEY (source_id, subject)
) WITHOUT ROWID;
INSERT INTO "stream_keys" VALUES(2,'order/01a22b30ad3577a5862115109987add9',1);
INSERT INTO "stream_keys" VALUES(3,'order/bad',3);
INSERT INTO "stream_keys" VALUES(3,'order/five',4);
INSERT INTO "stream_keys" VALUES(3,'order/gap',2);
CREATE TABLE streamless(
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    rows        INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    overflowed  INTEGER NOT NULL DEFAULT 0,
    dropped     INTEGER NOT NULL DEFAULT 0
);
INSERT INTO "streamless" VALUES(1,2,347,0,0);
CREATE TABLE streams(
    id       INTEGER PRIMARY KEY,
    version  INTEGER NOT NULL,
    cursor   INTEGER NOT NULL,
    held     INTEGER NOT NULL,
    -- 1 stands for SUBJECT#CURSOR, which most ids are.
    last_id,
    blocked  TEXT
, epoch INTEGER, epoch_random INTEGER, epoch_from INTEGER);
INSERT INTO "streams" VALUES(1,3,3,0,1,NULL,NULL,NULL,NULL);
INSERT INTO "streams" VALUES(2,1,1,1,1,NULL,NULL,NULL,NULL);
INSERT INTO "streams" VALUES(3,1,0,1,NULL,'92b1e670ccd31dc7-1',NULL,NULL,NULL);
INSERT INTO "streams" VALUES(4,1,1,1,1,NULL,7,-6973142138912186246,1);
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
, replies_rows INTEGER NOT NULL DEFAULT 0, replies_bytes INTEGER NOT NULL DEFAULT 0, scheduled_rows INTEGER NOT NULL DEFAULT 0, scheduled_bytes INTEGER NOT NULL DEFAULT 0, obeyed INTEGER NOT NULL DEFAULT 0, seen_pruned_to INTEGER, replies_pruned_to INTEGER);
INSERT INTO "totals" VALUES(1,11,4,5,5,9,4,4,1,4,509,4,724,2,148,3,666,3,2,0,2,5,0,1,1,202,1,182,1,1767225601000000000,NULL);
CREATE TABLE trials(
    source_id  INTEGER NOT NULL,
    event_id   TEXT NOT NULL,
    count      INTEGER NOT NULL,
    -- When it was last counted.
    time       INTEGER NOT NULL,
    PRIMARY KEY (source_id, event_id)
) WITHOUT ROWID;
INSERT INTO "trials" VALUES(3,'order/gap#1',2,1796020954224542203);
CREATE INDEX streams_holding ON streams(id) WHERE held > 0;
CREATE INDEX streams_blocked ON streams(id) WHERE blocked IS NOT NULL;
CREATE UNIQUE INDEX held_place ON held(stream_id, sequence) WHERE sequence IS NOT NULL;
CREATE INDEX held_due ON held(due) WHERE due IS NOT NULL;
CREATE INDEX held_since ON held(since);
CREATE INDEX held_awaiting ON held(about) WHERE reason = 1;
CREATE INDEX dead_fingerprint ON dead(fingerprint);
CREATE INDEX seen_time ON seen(time);
CREATE INDEX outbox_again ON outbox(due) WHERE due IS NOT NULL;
CREATE INDEX audit_about ON audit(about);
CREATE INDEX trials_time ON trials(time);
CREATE INDEX replies_time ON replies(time);
CREATE INDEX scheduled_due ON scheduled(due);
CREATE INDEX dead_streamless ON dead(fingerprint, streamless) WHERE streamless > 0;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('dead',5);
INSERT INTO "sqlite_sequence" VALUES('audit',1);
PRAGMA application_id = 1148153714;
PRAGMA user_version = 5;
COMMIT;
