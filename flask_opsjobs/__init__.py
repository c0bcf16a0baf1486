"""Exports the public names of flask_opsjobs, nothing else.

pytest imports this package in every run where it is installed, also for hosts that do not use it. So each
name is imported when it is first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

# Where they are.
_PLACES = (
    "._extension",
    ".batches.batch",
    ".errors",
    ".jobs.perform.current",
    ".jobs.perform.log_context",
    ".jobs.perform.outcomes",
    ".jobs.record.enqueue",
    ".jobs.record.options",
    ".jobs.record.task",
    ".jobs.search.filter",
    ".limits.limit",
    ".policy",
    ".workflows.build",
    ".workflows.declaration",
    ".workflows.references",
    ".workflows.start",
)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in __all__:
            for place in _PLACES:
                module = import_module(place, __name__)
                if hasattr(module, name):
                    return globals().setdefault(name, getattr(module, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
