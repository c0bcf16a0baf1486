"""A job: one call of a worker, from the moment it is recorded to its end."""
