"""Runs a worker process: claims, children, heartbeats, and what is recorded of them."""
