"""Connects jobs with RQ and Redis. Only this folder imports `rq` and `redis`."""
