"""Watches workers and loops by what Postgres knows: rescues jobs, checks integrity, deletes old rows.

It never asks Redis: a loop tells it what Redis says. `engine.reconcile` compares Postgres with Redis.
"""
