"""Serves the pages of queues."""
