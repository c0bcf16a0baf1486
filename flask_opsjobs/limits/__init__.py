"""Limits: limiters as workers declare them, their buckets and leases, and the arithmetic that admits."""
