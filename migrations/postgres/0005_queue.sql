-- The queue: what was handed over is counted down as it is opened, and batches can be paused, cancelled and moved.

-- How many of a chunk nobody opened yet. Of one that was handed over it is counted down, and at nothing the row goes.
ALTER TABLE due ADD COLUMN outstanding integer NOT NULL DEFAULT 0;
UPDATE due SET outstanding = cardinality(ids);
ALTER TABLE due ALTER COLUMN outstanding DROP DEFAULT;
DROP INDEX due_waiting;
CREATE INDEX due_waiting ON due (priority, account, batch_id, due_at) WHERE handed_by IS NULL;

-- state: 1 being accepted (nobody sees its rows), 2 accepted. epoch: the process that accepts it.
ALTER TABLE batches ADD COLUMN account smallint NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN priority smallint NOT NULL DEFAULT 2;
ALTER TABLE batches ADD COLUMN epoch bigint;
ALTER TABLE batches ADD COLUMN duplicates integer NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN scheduled_at bigint;
ALTER TABLE batches ADD COLUMN paused_at bigint;
ALTER TABLE batches ADD COLUMN cancelled_at bigint;
ALTER TABLE batches ADD COLUMN cancelled_by text;
CREATE INDEX batches_accepting ON batches (state) WHERE state = 1;
CREATE INDEX batches_held ON batches (id) WHERE paused_at IS NOT NULL OR cancelled_at IS NOT NULL;
