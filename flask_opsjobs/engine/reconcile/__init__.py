"""Compares Postgres with Redis, and repairs the differences:
lost deliveries, orphan deliveries, plain workers.

`lifeline` watches what Postgres alone knows.
"""
