"""Connects jobs with RQ and Redis. No other folder imports them."""
