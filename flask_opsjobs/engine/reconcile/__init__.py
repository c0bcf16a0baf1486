"""Compares Postgres with Redis, and repairs the differences: lost jobs, orphan deliveries, plain workers."""
