-- A batch is moved as one. due.with_batch: 1 for a chunk that comes with its batch's time; what is in it looks at no clock
-- of its own. notifications.moved_to: when one that was moved by itself is to leave.
ALTER TABLE due ADD COLUMN with_batch INTEGER;
ALTER TABLE notifications ADD COLUMN moved_to INTEGER;
UPDATE due SET with_batch = 1 WHERE handed_by IS NULL
    AND EXISTS (SELECT 1 FROM batches b WHERE b.id = due.batch_id AND b.scheduled_at = due.due_at);
UPDATE work SET due_at = (SELECT n.created_at FROM notifications n WHERE n.id = work.id)
    WHERE state = 1 AND EXISTS (SELECT 1 FROM notifications n JOIN batches b ON b.id = n.batch_id
                                WHERE n.id = work.id AND b.scheduled_at = work.due_at);
