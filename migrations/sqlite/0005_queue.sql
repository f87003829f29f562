-- The queue: what was handed over is counted down as it is opened, and batches can be paused, cancelled and moved.

-- outstanding: how many of a chunk nobody opened yet. Of one that was handed over it is counted down, and at nothing
-- the row goes. It stands before the ids, so that counting need not read them.
CREATE TABLE due_with_outstanding (
    id          BLOB PRIMARY KEY,
    due_at      INTEGER NOT NULL,
    handed_by   INTEGER,
    handed_at   INTEGER,
    outstanding INTEGER NOT NULL,
    account     INTEGER NOT NULL,
    priority    INTEGER NOT NULL,
    batch_id    BLOB,
    ids         BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO due_with_outstanding (id, due_at, handed_by, handed_at, outstanding, account, priority, batch_id, ids)
    SELECT id, due_at, handed_by, handed_at, length(ids) / 16, account, priority, batch_id, ids FROM due;
DROP TABLE due;
ALTER TABLE due_with_outstanding RENAME TO due;
CREATE INDEX due_waiting ON due (priority, account, batch_id, due_at) WHERE handed_by IS NULL;
CREATE INDEX due_handed ON due (handed_by) WHERE handed_by IS NOT NULL;

-- state: 1 being accepted (nobody sees its rows), 2 accepted. epoch: the process that accepts it.
ALTER TABLE batches ADD COLUMN account INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN priority INTEGER NOT NULL DEFAULT 2;
ALTER TABLE batches ADD COLUMN epoch INTEGER;
ALTER TABLE batches ADD COLUMN duplicates INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN scheduled_at INTEGER;
ALTER TABLE batches ADD COLUMN paused_at INTEGER;
ALTER TABLE batches ADD COLUMN cancelled_at INTEGER;
ALTER TABLE batches ADD COLUMN cancelled_by TEXT;
CREATE INDEX batches_accepting ON batches (state) WHERE state = 1;
CREATE INDEX batches_held ON batches (id) WHERE paused_at IS NOT NULL OR cancelled_at IS NOT NULL;
