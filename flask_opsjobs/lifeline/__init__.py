"""Finds and repairs faults: dead workers, lost jobs, and differences between Postgres and Redis."""
