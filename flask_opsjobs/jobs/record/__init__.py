"""Writes jobs: a call of a task becomes a row, in the transaction of the host."""
