-- Appends how many members were added to a batch. Folding adds the rows up. The row is appended, so it
-- blocks no other transaction, and a rollback removes it together with the members.
-- Run in the host's transaction after members were added. The caller holds the lock of lock_batch_to_add.
INSERT INTO opsjobs.batch_end_events (batch_id, kind, number) VALUES (%(id)s, 'enqueued', %(number)s)
