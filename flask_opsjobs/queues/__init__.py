"""Defines a queue: jobs wait in it for a worker that listens to it."""
