-- Requests to forget a record's personal data. step: 1 leads, 2 deals are remembered, 3 deals are cleared,
-- 4 notifications, 5 those that were being sent. cursor goes down the notifications: those from it on are done.
CREATE TABLE erasures (
    id            BLOB PRIMARY KEY,
    kind          INTEGER NOT NULL,
    record_id     TEXT NOT NULL,
    step          INTEGER NOT NULL,
    cursor        BLOB NOT NULL,
    notifications INTEGER NOT NULL,
    requested_at  INTEGER NOT NULL,
    done_at       INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX erasures_open ON erasures (id) WHERE done_at IS NULL;

-- What an erasure has to remember until it is done: addresses, records, and notifications that were being sent.
CREATE TABLE erasing (
    erasure BLOB NOT NULL,
    what    INTEGER NOT NULL,
    value   TEXT NOT NULL,
    PRIMARY KEY (erasure, what, value)
) STRICT, WITHOUT ROWID;

-- How far each kind of clearing away has come, and what it passed over because it was not settled yet.
CREATE TABLE retention (
    step   INTEGER PRIMARY KEY,
    cursor BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE retention_later (
    step INTEGER NOT NULL,
    id   BLOB NOT NULL,
    PRIMARY KEY (step, id)
) STRICT, WITHOUT ROWID;

-- How many notifications were removed, per batch (all zero: no batch) and the status they had.
CREATE TABLE removed (
    batch_id BLOB NOT NULL,
    status   INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (batch_id, status)
) STRICT, WITHOUT ROWID;
