"""Selects the jobs of a filter to freeze them: all of them, where a list or a search stops at its limits."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Insert,
    Text,
    and_,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ..batches.models import BatchRecord
from ..failures.models import Deploy, Failure
from ..jobs.models import Attempt, Job
from ..jobs.search.filter import JobFilter
from ..jobs.search.index_scan import conditions_of
from ..lifeline.models import IncidentRecord
from ..workers.models import Worker
from ..workflows.models import StepRecord, WorkflowRecord
from .models import OperationRow

# The most jobs of one operation.
MOST_JOBS = 1_000_000
_FROZEN = ("queue", "origin", "state", "dispatch_no", "attempt")


def find_unfrozen_term(wanted: JobFilter) -> str | None:
    """Why these jobs cannot be frozen, as a sentence; None when they can.

    The text of an error is searched as the display policy shows it, which Postgres cannot.
    """
    if wanted.error is None:
        return None
    return (
        "an operation cannot choose jobs by the text of an error: choose them by the failure, such as "
        "failure:58"
    )


def freeze_statement(operation: int, wanted: JobFilter, now: datetime) -> Insert:
    """The statement that writes a row for each job that fits now, by id, and one row too many if there are.

    The failure key is that of the attempt with the job's dispatch number: its last one.
    """
    chosen = select(Job.id, *(getattr(Job, name) for name in _FROZEN)).where(
        *conditions_of(wanted), *_further_conditions(wanted, now)
    )
    some = chosen.order_by(Job.id).limit(MOST_JOBS + 1).subquery("some")
    last = and_(Attempt.job_id == some.c.id, Attempt.dispatch_no == some.c.dispatch_no)
    rows = select(
        literal(operation),
        func.row_number().over(order_by=some.c.id),
        *some.c,
        Attempt.failure_key,
    ).select_from(some.outerjoin(Attempt, last))
    columns = ["operation_id", "number", "job_id", *_FROZEN, "failure_key"]
    return insert(OperationRow).from_select(columns, rows)


def _further_conditions(wanted: JobFilter, now: datetime) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.id is not None:
        found.append(Job.id == wanted.id)
    if wanted.created is not None:
        moment = now - wanted.created.span
        is_within = wanted.created.is_within
        found.append(Job.created_at > moment if is_within else Job.created_at <= moment)
    if wanted.tag is not None:
        found.append(Job.tags.bool_op("@>")(cast([wanted.tag], ARRAY(Text))))
    for argument in wanted.args:
        shapes = (cast(literal(shape, Text), JSONB) for shape in argument.shapes)
        found.append(or_(*(Job.args.contains(shape) for shape in shapes)))
    found += _conditions_of_named(wanted)
    if wanted.is_by_attempts:
        found.append(Job.id.in_(select(Attempt.job_id).where(*_conditions_of_attempt(wanted))))
    return found


def _conditions_of_named(wanted: JobFilter) -> list[ColumnElement[bool]]:
    """The conditions that a job is one of a workflow, a step, a batch, a worker or an incident."""
    found: list[ColumnElement[bool]] = []
    if wanted.workflow is not None:
        found.append(Job.workflow_id.in_(_named(WorkflowRecord, wanted.workflow)))
    if wanted.step is not None and wanted.workflow is not None:
        of_runs = StepRecord.workflow_id.in_(_named(WorkflowRecord, wanted.workflow))
        steps = select(StepRecord.job_id).where(of_runs, StepRecord.name == wanted.step)
        found.append(Job.id.in_(steps))
    if wanted.batch is not None:
        found.append(Job.batch_id.in_(_named(BatchRecord, wanted.batch)))
    if wanted.worker is not None:
        worker = select(Worker.id).where(Worker.name == wanted.worker).scalar_subquery()
        runs = and_(Job.state == "started", Job.worker_id == worker)
        has_taken = and_(Job.state == "queued", Job.reserved_by == worker)
        found += [or_(runs, has_taken), Job.origin == "opsjobs"]
    if wanted.incident is not None:
        named = func.jsonb_array_elements_text(IncidentRecord.facts["jobs"]).cast(BigInteger)
        found.append(Job.id.in_(select(named).where(IncidentRecord.id == wanted.incident)))
    return found


def _named(table: Any, name: int | str) -> Any:
    """The ids of the workflows or batches with this id or name."""
    return select(table.id).where(table.id == name if isinstance(name, int) else table.name == name)


def _conditions_of_attempt(wanted: JobFilter) -> list[ColumnElement[bool]]:
    """The conditions on one attempt: its failure, its death and its deploy."""
    found: list[ColumnElement[bool]] = []
    if wanted.failure is not None:
        key = select(Failure.key).where(Failure.id == wanted.failure).scalar_subquery()
        found += [Attempt.failure_key == key, Attempt.failure_key.is_not(None)]
    if wanted.death is not None:
        found.append(Attempt.death == wanted.death)
    if wanted.deploy is not None:
        found.append(
            Attempt.deploy_id.in_(select(Deploy.id).where(Deploy.version == wanted.deploy))
        )
    return found
