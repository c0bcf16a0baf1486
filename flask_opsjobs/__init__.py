"""Exports the public names of flask_opsjobs, nothing else."""

from ._extension import OpsJobs
from .errors import (
    ActionRefused,
    AuditBlocked,
    AuditHeadMissing,
    AuditUnwritable,
    ConfigError,
    DeclarationError,
    EmbeddedServerError,
    EngineUnavailable,
    InvalidArgs,
    LimitReached,
    MigrationBlocked,
    OpsJobsError,
    SchemaAhead,
    SchemaBehind,
    TooManyActions,
    UnknownJob,
    WrongSession,
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
    "AuditBlocked",
    "AuditHeadMissing",
    "AuditUnwritable",
    "Cancel",
    "ConfigError",
    "DeclarationError",
    "Discard",
    "DisplayPolicy",
    "EmbeddedServerError",
    "EngineUnavailable",
    "Enqueued",
    "EnqueuedMany",
    "InvalidArgs",
    "Limit",
    "LimitReached",
    "MigrationBlocked",
    "OpsJobs",
    "OpsJobsError",
    "RetryIn",
    "SchemaAhead",
    "SchemaBehind",
    "Snooze",
    "Task",
    "TooManyActions",
    "Unique",
    "UnknownJob",
    "WrongSession",
    "current_job",
]
