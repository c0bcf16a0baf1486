"""Exports the public names of flask_opsjobs, nothing else."""

from ._extension import OpsJobs
from .batches.batch import Batch
from .errors import (
    ActionRefused,
    AuditBlocked,
    AuditHeadMissing,
    AuditUnwritable,
    BatchClosed,
    ConfigError,
    DeclarationError,
    EmbeddedServerError,
    EngineUnavailable,
    InvalidArgs,
    InvalidBatch,
    InvalidDeploy,
    InvalidSignal,
    InvalidWorkflow,
    LimitReached,
    MigrationBlocked,
    OpsJobsError,
    SchemaAhead,
    SchemaBehind,
    TooManyActions,
    UnknownBatch,
    UnknownJob,
    UnknownSubject,
    UnknownWorkflow,
    WrongSession,
)
from .jobs.perform.current import current_job
from .jobs.perform.log_context import AttemptFilter
from .jobs.perform.outcomes import Cancel, Discard, RetryIn, Snooze
from .jobs.record.enqueue import Enqueued, EnqueuedMany
from .jobs.record.options import Unique
from .jobs.record.task import ChainLink, Task
from .jobs.search.filter import JobFilter
from .limits.limit import Limit
from .policy import AccessPolicy, DisplayPolicy
from .workflows.build import Workflow
from .workflows.declaration import Group, Map, Step, Wait
from .workflows.references import Reference, previous
from .workflows.start import Started

__version__ = "0.1.0"

__all__ = [
    "AccessPolicy",
    "ActionRefused",
    "AttemptFilter",
    "AuditBlocked",
    "AuditHeadMissing",
    "AuditUnwritable",
    "Batch",
    "BatchClosed",
    "Cancel",
    "ChainLink",
    "ConfigError",
    "DeclarationError",
    "Discard",
    "DisplayPolicy",
    "EmbeddedServerError",
    "EngineUnavailable",
    "Enqueued",
    "EnqueuedMany",
    "Group",
    "InvalidArgs",
    "InvalidBatch",
    "InvalidDeploy",
    "InvalidSignal",
    "InvalidWorkflow",
    "JobFilter",
    "Limit",
    "LimitReached",
    "Map",
    "MigrationBlocked",
    "OpsJobs",
    "OpsJobsError",
    "Reference",
    "RetryIn",
    "SchemaAhead",
    "SchemaBehind",
    "Snooze",
    "Started",
    "Step",
    "Task",
    "TooManyActions",
    "Unique",
    "UnknownBatch",
    "UnknownJob",
    "UnknownSubject",
    "UnknownWorkflow",
    "Wait",
    "Workflow",
    "WrongSession",
    "current_job",
    "previous",
]
