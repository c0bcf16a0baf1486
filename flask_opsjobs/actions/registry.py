"""Gathers the actions of all domains. Pages, commands and `operator` read this list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..batches import actions as batch_actions
from ..batches.transitions import BatchForDecision
from ..cron import actions as cron_actions
from ..cron.actions import CronForDecision
from ..deliveries import actions as delivery_actions
from ..deliveries.actions import DeliveryForDecision
from ..failures import actions as failure_actions
from ..failures.transitions import FailureForDecision
from ..jobs import actions as job_actions
from ..jobs.transitions import JobForDecision
from ..leases import actions as lease_actions
from ..leases.transitions import LeaseForDecision
from ..lifeline import actions as incident_actions
from ..lifeline.transitions import IncidentForDecision
from ..limits import actions as limit_actions
from ..limits.transitions import Cooldown
from ..notes import actions as note_actions
from ..notes.transitions import SubjectForDecision
from ..operations import actions as operation_actions
from ..operations.transitions import OperationForDecision
from ..queues import actions as queue_actions
from ..queues.transitions import QueueForDecision
from ..tasks import actions as task_actions
from ..tasks.pauses import TaskForDecision
from ..workers import actions as worker_actions
from ..workers.transitions import WorkerForDecision
from ..workflows import actions as workflow_actions
from ..workflows.actions import RunWithSteps
from .domain import Action, Domain

_JOBS: Domain[JobForDecision] = job_actions
_QUEUES: Domain[QueueForDecision] = queue_actions
_TASKS: Domain[TaskForDecision] = task_actions
_WORKERS: Domain[WorkerForDecision] = worker_actions
_WORKFLOWS: Domain[RunWithSteps] = workflow_actions
_BATCHES: Domain[BatchForDecision] = batch_actions
_CRON: Domain[CronForDecision] = cron_actions
_LIMITERS: Domain[Cooldown] = limit_actions
_LEASES: Domain[LeaseForDecision] = lease_actions
_DELIVERIES: Domain[DeliveryForDecision] = delivery_actions
_INCIDENTS: Domain[IncidentForDecision] = incident_actions
_FAILURES: Domain[FailureForDecision] = failure_actions
_OPERATIONS: Domain[OperationForDecision] = operation_actions
_NOTES: Domain[SubjectForDecision] = note_actions

# By the first word of their targets and actions.
DOMAINS: Mapping[str, Domain[Any]] = {
    "job": _JOBS,
    "queue": _QUEUES,
    "task": _TASKS,
    "worker": _WORKERS,
    "workflow": _WORKFLOWS,
    "batch": _BATCHES,
    "cron": _CRON,
    "limiter": _LIMITERS,
    "lease": _LEASES,
    "delivery": _DELIVERIES,
    "incident": _INCIDENTS,
    "failure": _FAILURES,
    "operation": _OPERATIONS,
    "note": _NOTES,
}
ACTIONS: Mapping[str, Action[Any]] = {
    action.name: action for domain in DOMAINS.values() for action in domain.ACTIONS
}


def actions_of(domain: str, state: str | None = None) -> tuple[Action[Any], ...]:
    """The actions of a domain, in the order of their buttons; with `state` those that are legal in it."""
    actions = DOMAINS[domain].ACTIONS
    return tuple(action for action in actions if state is None or state in action.sources)
