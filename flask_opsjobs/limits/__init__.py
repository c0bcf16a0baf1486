"""Limits how many jobs start: limiters as tasks declare them, their buckets and leases."""
