"""Defines a job: one call of a task, from enqueue to its end."""
