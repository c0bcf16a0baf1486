"""Defines what an operator may do with a lease, the place that one attempt has in a limiter."""
