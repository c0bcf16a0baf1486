"""Runs the example host with its own PostgreSQL and Valkey: `make demo`."""
