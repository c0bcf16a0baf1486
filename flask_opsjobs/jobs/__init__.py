"""A job: one call of a task, from the moment it is recorded to its end."""
