"""Exports the public names of flask_opsjobs, nothing else."""

from ._extension import OpsJobs
from .errors import (
    ActionRefused,
    ConfigError,
    InvalidArgs,
    LimitReached,
    OpsJobsError,
    SchemaAhead,
    SchemaBehind,
)
from .jobs.perform.current import current_job
from .jobs.perform.outcomes import Cancel, Discard, RetryIn, Snooze
from .jobs.record.enqueue import Enqueued, EnqueuedMany
from .jobs.record.options import Unique
from .jobs.record.task import Task
from .limits.limit import Limit
from .policy import AccessPolicy, DisplayPolicy

__version__ = "0.1.0"

__all__ = [
    "AccessPolicy",
    "ActionRefused",
    "Cancel",
    "ConfigError",
    "Discard",
    "DisplayPolicy",
    "Enqueued",
    "EnqueuedMany",
    "InvalidArgs",
    "Limit",
    "LimitReached",
    "OpsJobs",
    "OpsJobsError",
    "RetryIn",
    "SchemaAhead",
    "SchemaBehind",
    "Snooze",
    "Task",
    "Unique",
    "current_job",
]
