-- Who resolved a dead letter, and why. Of one that was replayed, replayed_as names the notification that took its place.
ALTER TABLE failed ADD COLUMN resolved_by text;
ALTER TABLE failed ADD COLUMN reason text;

-- The dead letters are found among all that ever failed, newest first.
CREATE INDEX failed_dead ON failed (id) WHERE resolved_at IS NULL;
CREATE INDEX failed_dead_batch ON failed (batch_id, id) WHERE resolved_at IS NULL AND batch_id IS NOT NULL;
CREATE INDEX uncertain_batch ON uncertain (batch_id, id) WHERE batch_id IS NOT NULL;
