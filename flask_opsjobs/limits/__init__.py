"""Limits: limiters as tasks declare them, their buckets and leases, and the arithmetic that admits."""
