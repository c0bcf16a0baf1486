"""Compares Postgres with Redis, and puts right what only one of them knows."""
