"""Defines a queue: where jobs wait for a worker that listens to it."""
