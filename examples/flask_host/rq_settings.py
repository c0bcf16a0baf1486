"""Says what RQ's own worker serves: `rq worker -c flask_host.rq_settings`.

The functions are imported here, once, and not again by each process that RQ forks for a job.
"""

from __future__ import annotations

from .exports import QUEUE
from .plain_jobs import app

REDIS_URL: str = app.config["OPSJOBS_REDIS_URL"]
QUEUES = [QUEUE]
