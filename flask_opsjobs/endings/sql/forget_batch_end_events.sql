-- Deletes appended rows of a batch that is gone: nobody could fold them.
-- Run by `fold`, when it finds no batch that it can lock. Indexes: batch_end_events_by_batch, batches_pkey.
DELETE FROM opsjobs.batch_end_events
WHERE batch_id = %(id)s AND NOT EXISTS (SELECT FROM opsjobs.batches WHERE id = %(id)s)
