"""Enqueues jobs: writes a call of a task as a row, in the transaction of the host."""
