"""Runs a worker process: claims jobs, runs them in children, sends heartbeats, and records outcomes."""
