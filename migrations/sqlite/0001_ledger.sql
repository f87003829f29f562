-- Times are Unix microseconds UTC. Small numbers (channel, status, …) are the codes of the types in src/domain.
-- The twin of the PostgreSQL file. A list of ids is 16 bytes each, one after the other.

CREATE TABLE accounts (
    id          INTEGER PRIMARY KEY,
    channel     INTEGER NOT NULL,
    name        TEXT NOT NULL,
    UNIQUE (channel, name)
) STRICT, WITHOUT ROWID;

-- One row per life of a process. A row with lost_at opens nothing any more.
CREATE TABLE workers (
    epoch       INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL,
    started_at  INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    lost_at     INTEGER
) STRICT;

-- accepted is written by the accept itself: verify holds it against the rows.
CREATE TABLE batches (
    id          BLOB PRIMARY KEY,
    state       INTEGER NOT NULL,
    channel     INTEGER NOT NULL,
    template_id TEXT,
    accepted    INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What was asked. Immutable.
CREATE TABLE notifications (
    id               BLOB PRIMARY KEY,
    batch_id         BLOB,
    created_at       INTEGER NOT NULL,
    scheduled_at     INTEGER,
    not_after        INTEGER,
    lead_id          INTEGER,
    template_version INTEGER,
    channel          INTEGER NOT NULL,
    priority         INTEGER NOT NULL,
    policy           INTEGER NOT NULL,
    mode             INTEGER NOT NULL,
    max_retries      INTEGER NOT NULL,
    recipient        TEXT NOT NULL,
    template_id      TEXT,
    body             TEXT,
    contact_id       TEXT,
    deal_id          TEXT,
    company_id       TEXT,
    data             TEXT,
    metadata         TEXT,
    external_id      TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX notifications_batch ON notifications (batch_id, id) WHERE batch_id IS NOT NULL;
CREATE INDEX notifications_contact ON notifications (contact_id, id) WHERE contact_id IS NOT NULL;
CREATE INDEX notifications_external ON notifications (external_id) WHERE external_id IS NOT NULL;

-- Where each one stands. Narrow and hot.
CREATE TABLE work (
    id          BLOB PRIMARY KEY,
    due_at      INTEGER NOT NULL,
    opened_at   INTEGER,
    epoch       INTEGER,
    generation  INTEGER NOT NULL,
    account     INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    hold        INTEGER,
    attempt     INTEGER NOT NULL,
    retry_count INTEGER NOT NULL,
    resends     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What has to be done: up to 500 notifications of one account and priority that become due together. A hint, work is
-- the truth: an id that is no longer waiting, or waits for later, is passed over. handed_by is the epoch that took
-- the chunk; the row goes when all of it was opened.
CREATE TABLE due (
    id          BLOB PRIMARY KEY,
    due_at      INTEGER NOT NULL,
    handed_by   INTEGER,
    handed_at   INTEGER,
    account     INTEGER NOT NULL,
    priority    INTEGER NOT NULL,
    batch_id    BLOB,
    ids         BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX due_waiting ON due (account, priority, due_at) WHERE handed_by IS NULL;
CREATE INDEX due_handed ON due (handed_by) WHERE handed_by IS NOT NULL;

-- Attempts opened in one commit. The row goes when the last of them is recorded; what is left when its epoch is lost
-- names every send that was cut off.
CREATE TABLE opens (
    id          BLOB PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    ids         BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX opens_epoch ON opens (epoch);

-- One row per send, inserted once, when its outcome is recorded.
CREATE TABLE attempts (
    notification_id     BLOB NOT NULL,
    opened_at           INTEGER NOT NULL,
    closed_at           INTEGER NOT NULL,
    epoch               INTEGER NOT NULL,
    template_version    INTEGER,
    n                   INTEGER NOT NULL,
    account             INTEGER NOT NULL,
    class               INTEGER NOT NULL,
    flagged             INTEGER NOT NULL,
    cause               TEXT NOT NULL,
    provider_message_id TEXT,
    code                TEXT,
    detail              TEXT,
    text_hash           BLOB,
    PRIMARY KEY (notification_id, n)
) STRICT, WITHOUT ROWID;

-- Moves that are not a send: cancelled, expired, settled by a person.
CREATE TABLE events (
    id              BLOB PRIMARY KEY,
    notification_id BLOB NOT NULL,
    at              INTEGER NOT NULL,
    status          INTEGER NOT NULL,
    actor           TEXT NOT NULL,
    reason          TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX events_notification ON events (notification_id);

-- The dead letters.
CREATE TABLE failed (
    id          BLOB PRIMARY KEY,
    failed_at   INTEGER NOT NULL,
    resolved_at INTEGER,
    replayed_as BLOB,
    batch_id    BLOB,
    account     INTEGER NOT NULL,
    resolution  INTEGER,
    cause       TEXT NOT NULL,
    code        TEXT,
    detail      TEXT,
    template_id TEXT
) STRICT, WITHOUT ROWID;

-- Nobody knows whether these left.
CREATE TABLE uncertain (
    id          BLOB PRIMARY KEY,
    since       INTEGER NOT NULL,
    batch_id    BLOB,
    account     INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    cause       TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Progress as deltas, one row per batch (all zero: no batch), process, committer and status, summed on read.
-- Status 0 counts what was accepted.
CREATE TABLE counters (
    batch_id    BLOB NOT NULL,
    epoch       INTEGER NOT NULL,
    slot        INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    n           INTEGER NOT NULL,
    PRIMARY KEY (batch_id, epoch, slot, status)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    scope        TEXT NOT NULL,
    key          TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    ids          BLOB NOT NULL,
    batch_id     BLOB,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

CREATE TABLE templates (
    id              TEXT PRIMARY KEY,
    current_version INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    deleted_at      INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE template_versions (
    template_id TEXT NOT NULL,
    version     INTEGER NOT NULL,
    body        TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (template_id, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id          BLOB PRIMARY KEY,
    name        TEXT NOT NULL,
    hash        BLOB NOT NULL UNIQUE,
    scopes      TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE suppressions (
    channel     INTEGER NOT NULL,
    address     TEXT NOT NULL,
    scope       INTEGER NOT NULL,
    reason      TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (channel, address, scope)
) STRICT, WITHOUT ROWID;
