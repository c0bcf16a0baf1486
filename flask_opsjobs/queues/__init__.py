"""A queue: where jobs wait for an executor that listens to it."""
