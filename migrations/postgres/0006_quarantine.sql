-- What came by the broker and could not be read. The same message has the same id.
CREATE TABLE quarantine (
    id           uuid PRIMARY KEY,
    received_at  bigint NOT NULL,
    source       text NOT NULL,
    reason       text NOT NULL,
    content_type text,
    body         bytea NOT NULL,
    body_size    bigint NOT NULL,
    times        bigint NOT NULL
);
