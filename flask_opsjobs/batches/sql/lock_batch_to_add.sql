-- Locks an open batch so that it does not end before the commit; no row when it is not open, or there is no
-- such batch. Several transactions may hold this lock at once, and others fold and close the batch beside it.
-- Run in the host's transaction before members are added. Index: batches_pkey.
SELECT id FROM opsjobs.batches WHERE id = %(id)s AND state = 'open' FOR KEY SHARE
