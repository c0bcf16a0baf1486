"""Reads RQ through rq-dashboard: isolated from the host's own rq-dashboard, without writes and unpickling."""
