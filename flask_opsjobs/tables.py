"""Imports every model, so that `Base.metadata` is complete."""

from .actions import models as actions
from .audit import models as audit
from .batches import models as batches
from .core.db import Base
from .cron import models as cron
from .escalations import models as escalations
from .failures import models as failures
from .jobs import models as jobs
from .jobs.adopted import models as adopted
from .lifeline import models as lifeline
from .limits import models as limits
from .operations import models as operations
from .overview import models as overview
from .queues import models as queues
from .tasks import models as tasks
from .workers import models as workers
from .workflows import models as workflows

metadata = Base.metadata

__all__ = [
    "actions",
    "adopted",
    "audit",
    "batches",
    "cron",
    "escalations",
    "failures",
    "jobs",
    "lifeline",
    "limits",
    "metadata",
    "operations",
    "overview",
    "queues",
    "tasks",
    "workers",
    "workflows",
]
