"""Shows RQ's own view, read through rq-dashboard, in pages of ours and as rq-dashboard's JSON."""
