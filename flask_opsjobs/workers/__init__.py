"""The running programs that perform jobs: `flask opsjobs worker`, or a plain `rq worker`."""
