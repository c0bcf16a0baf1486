"""Measures managed jobs against plain RQ: `make bench`."""
