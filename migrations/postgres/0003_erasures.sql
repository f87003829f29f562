-- Requests to forget a record's personal data. step: 1 leads, 2 deals are remembered, 3 deals are cleared,
-- 4 notifications, 5 those that were being sent. cursor goes down the notifications: those from it on are done.
CREATE TABLE erasures (
    id            uuid PRIMARY KEY,
    kind          smallint NOT NULL,
    record_id     text NOT NULL,
    step          smallint NOT NULL,
    cursor        uuid NOT NULL,
    notifications bigint NOT NULL,
    requested_at  bigint NOT NULL,
    done_at       bigint
);
CREATE INDEX erasures_open ON erasures (id) WHERE done_at IS NULL;

-- What an erasure has to remember until it is done: addresses, records, and notifications that were being sent.
CREATE TABLE erasing (
    erasure uuid NOT NULL,
    what    smallint NOT NULL,
    value   text COLLATE "C" NOT NULL,
    PRIMARY KEY (erasure, what, value)
);

-- How far each kind of clearing away has come, and what it passed over because it was not settled yet.
CREATE TABLE retention (
    step   smallint PRIMARY KEY,
    cursor uuid NOT NULL
);
CREATE TABLE retention_later (
    step smallint NOT NULL,
    id   uuid NOT NULL,
    PRIMARY KEY (step, id)
);

-- How many notifications were removed, per batch (all zero: no batch) and the status they had.
CREATE TABLE removed (
    batch_id uuid NOT NULL,
    status   smallint NOT NULL,
    n        bigint NOT NULL,
    PRIMARY KEY (batch_id, status)
);
