"""Selects the jobs of a filter to freeze them: all of them, where a list or a search stops at its limits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Insert,
    Select,
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
from ..jobs.search.group_queries import is_one_of
from ..jobs.search.index_scan import conditions_of
from ..jobs.search.queries import contains
from ..lifeline.models import IncidentRecord
from ..workers.models import Worker
from ..workflows.models import StepRecord, WorkflowRecord
from .models import OperationRow

# The most jobs of one operation.
MOST_JOBS = 1_000_000
# In so many jobs the text of an error is searched.
MOST_ERRORS = 100_000
_FROZEN = ("queue", "origin", "state", "dispatch_no", "attempt")


def count_errors_statement(wanted: JobFilter, now: datetime) -> Select[int]:
    """Counts the jobs that fit and have an error, whatever it says, up to one more than `MOST_ERRORS`."""
    some = select(Job.id).where(*_conditions_of_errors(wanted, now)).limit(MOST_ERRORS + 1)
    return select(func.count()).select_from(some.subquery("some"))


def list_errors_statement(wanted: JobFilter, now: datetime) -> Select[int, str | None]:
    """Id and error of the jobs that fit and whose error, as it is stored, has the searched text."""
    assert wanted.error is not None
    has_text = contains(Job.error, wanted.error)
    return select(Job.id, Job.error).where(*_conditions_of_errors(wanted, now), has_text)


def _conditions_of_errors(wanted: JobFilter, now: datetime) -> list[ColumnElement[bool]]:
    return [Job.error.is_not(None), *conditions_of(wanted), *_further_conditions(wanted, now)]


def freeze_statement(
    operation: int, wanted: JobFilter, now: datetime, most: int, ids: Sequence[int] | None = None
) -> Insert:
    """The statement that writes a row for each job that fits now, by id, and one above `most` if there are.

    `ids` are the jobs whose errors have the searched text: the display policy decides, so Postgres cannot.
    The failure key is that of the attempt with the job's dispatch number: its last one.
    """
    chosen = select(Job.id, *(getattr(Job, name) for name in _FROZEN)).where(
        *conditions_of(wanted), *_further_conditions(wanted, now)
    )
    if ids is not None:
        chosen = chosen.where(is_one_of(Job.id, ids))
    some = chosen.order_by(Job.id).limit(most + 1).subquery("some")
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
