"""Talks to RQ and Redis: deliveries, connections, and reads that change nothing."""
