"""Records the worker processes that perform jobs: `flask opsjobs worker`, or a plain `rq worker`."""
