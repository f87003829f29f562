-- What came by the broker and could not be read. The same message has the same id.
CREATE TABLE quarantine (
    id           BLOB PRIMARY KEY,
    received_at  INTEGER NOT NULL,
    source       TEXT NOT NULL,
    reason       TEXT NOT NULL,
    content_type TEXT,
    body         BLOB NOT NULL,
    body_size    INTEGER NOT NULL,
    times        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
