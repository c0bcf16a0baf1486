-- Locks a signal, after runs and before jobs: nobody else gives it to a wait until the commit. Waits for one
-- who does, and for a host that sends it again.
-- Run by the action that gives a signal to a wait, in the transaction of its execution. Index: signals_pkey.
SELECT FROM opsjobs.signals WHERE id = %(id)s FOR UPDATE
