-- Times are Unix microseconds UTC. Small numbers (channel, status, …) are the codes of the types in src/domain.
-- Cold tables are written once; hot ones are narrow, and no index of theirs names a column the hot path updates, so
-- that updates stay on their page (HOT).

-- The server's clock: leases and due times are compared with this one, never with a node's.
CREATE FUNCTION vestnik_now() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

CREATE TABLE accounts (
    id          smallint PRIMARY KEY,
    channel     smallint NOT NULL,
    name        text NOT NULL,
    UNIQUE (channel, name)
);

-- One row per life of a process. A row with lost_at opens nothing any more.
CREATE TABLE workers (
    epoch       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    started_at  bigint NOT NULL,
    lease_until bigint NOT NULL,
    lost_at     bigint
);

-- accepted is written by the accept itself: verify holds it against the rows.
CREATE TABLE batches (
    id          uuid PRIMARY KEY,
    state       smallint NOT NULL,
    channel     smallint NOT NULL,
    template_id text,
    accepted    bigint NOT NULL,
    created_at  bigint NOT NULL
);

-- What was asked. Immutable.
CREATE TABLE notifications (
    id               uuid PRIMARY KEY,
    batch_id         uuid,
    created_at       bigint NOT NULL,
    scheduled_at     bigint,
    not_after        bigint,
    lead_id          bigint,
    template_version integer,
    channel          smallint NOT NULL,
    priority         smallint NOT NULL,
    policy           smallint NOT NULL,
    mode             smallint NOT NULL,
    max_retries      smallint NOT NULL,
    recipient        text NOT NULL,
    template_id      text,
    body             text,
    contact_id       text,
    deal_id          text,
    company_id       text,
    data             text,
    metadata         text,
    external_id      text
);
CREATE INDEX notifications_batch ON notifications (batch_id, id) WHERE batch_id IS NOT NULL;
CREATE INDEX notifications_contact ON notifications (contact_id, id) WHERE contact_id IS NOT NULL;
CREATE INDEX notifications_external ON notifications (external_id) WHERE external_id IS NOT NULL;

-- Where each one stands. Narrow and hot. A quarter full, a page has room for the four versions a row has on its usual
-- way, also when nothing can be cleared away yet because others still look.
CREATE TABLE work (
    id          uuid PRIMARY KEY,
    due_at      bigint NOT NULL,
    opened_at   bigint,
    epoch       bigint,
    generation  integer NOT NULL,
    account     smallint NOT NULL,
    state       smallint NOT NULL,
    hold        smallint,
    attempt     smallint NOT NULL,
    retry_count smallint NOT NULL,
    resends     smallint NOT NULL
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0.05);

-- What has to be done: up to 500 notifications of one account and priority that become due together. A hint, work is
-- the truth: an id that is no longer waiting, or waits for later, is passed over. handed_by is the epoch that took
-- the chunk; the row goes when all of it was opened.
CREATE TABLE due (
    id          uuid PRIMARY KEY,
    due_at      bigint NOT NULL,
    handed_by   bigint,
    handed_at   bigint,
    account     smallint NOT NULL,
    priority    smallint NOT NULL,
    batch_id    uuid,
    ids         uuid[] NOT NULL
);
CREATE INDEX due_waiting ON due (account, priority, due_at) WHERE handed_by IS NULL;
CREATE INDEX due_handed ON due (handed_by) WHERE handed_by IS NOT NULL;

-- Attempts opened in one commit. The row goes when the last of them is recorded; what is left when its epoch is lost
-- names every send that was cut off.
CREATE TABLE opens (
    id          uuid PRIMARY KEY,
    epoch       bigint NOT NULL,
    ids         uuid[] NOT NULL
);
CREATE INDEX opens_epoch ON opens (epoch);

-- One row per send, inserted once, when its outcome is recorded.
CREATE TABLE attempts (
    notification_id     uuid NOT NULL,
    opened_at           bigint NOT NULL,
    closed_at           bigint NOT NULL,
    epoch               bigint NOT NULL,
    template_version    integer,
    n                   smallint NOT NULL,
    account             smallint NOT NULL,
    class               smallint NOT NULL,
    flagged             smallint NOT NULL,
    cause               text NOT NULL,
    provider_message_id text,
    code                text,
    detail              text,
    text_hash           bytea,
    PRIMARY KEY (notification_id, n)
);

-- Moves that are not a send: cancelled, expired, settled by a person.
CREATE TABLE events (
    id              uuid PRIMARY KEY,
    notification_id uuid NOT NULL,
    at              bigint NOT NULL,
    status          smallint NOT NULL,
    actor           text NOT NULL,
    reason          text NOT NULL
);
CREATE INDEX events_notification ON events (notification_id);

-- The dead letters.
CREATE TABLE failed (
    id          uuid PRIMARY KEY,
    failed_at   bigint NOT NULL,
    resolved_at bigint,
    replayed_as uuid,
    batch_id    uuid,
    account     smallint NOT NULL,
    resolution  smallint,
    cause       text NOT NULL,
    code        text,
    detail      text,
    template_id text
);

-- Nobody knows whether these left.
CREATE TABLE uncertain (
    id          uuid PRIMARY KEY,
    since       bigint NOT NULL,
    batch_id    uuid,
    account     smallint NOT NULL,
    attempt     smallint NOT NULL,
    cause       text NOT NULL
);

-- Progress as deltas, one row per batch (all zero: no batch), process, committer and status, summed on read.
-- Status 0 counts what was accepted.
CREATE TABLE counters (
    batch_id    uuid NOT NULL,
    epoch       bigint NOT NULL,
    slot        smallint NOT NULL,
    status      smallint NOT NULL,
    n           bigint NOT NULL,
    PRIMARY KEY (batch_id, epoch, slot, status)
) WITH (fillfactor = 30);

CREATE TABLE idempotency (
    scope        text NOT NULL,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    ids          uuid[] NOT NULL,
    batch_id     uuid,
    created_at   bigint NOT NULL,
    expires_at   bigint NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

-- Names sort byte by byte, as in SQLite, whatever the database's collation.
CREATE TABLE templates (
    id              text COLLATE "C" PRIMARY KEY,
    current_version integer NOT NULL,
    updated_at      bigint NOT NULL,
    deleted_at      bigint
);

CREATE TABLE template_versions (
    template_id text COLLATE "C" NOT NULL,
    version     integer NOT NULL,
    body        text NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (template_id, version)
);

CREATE TABLE api_keys (
    id          uuid PRIMARY KEY,
    name        text NOT NULL,
    hash        bytea NOT NULL UNIQUE,
    scopes      text NOT NULL,
    created_at  bigint NOT NULL,
    revoked_at  bigint
);

CREATE TABLE suppressions (
    channel     smallint NOT NULL,
    address     text COLLATE "C" NOT NULL,
    scope       smallint NOT NULL,
    reason      text NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (channel, address, scope)
);
