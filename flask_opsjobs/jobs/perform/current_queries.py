"""Reads what a running function asks about its job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row

from ...core import sql
from ...core.db import Connection


@dataclass(frozen=True)
class CurrentWorkflow:
    """The run that the running job is a step of, and the name of the step."""

    id: int
    name: str
    step: str
    context: Mapping[str, Any]


@dataclass(frozen=True)
class CurrentBatch:
    """The batch that the running job is a member of."""

    id: int
    name: str
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class TracedPast:
    """The trace context in which a job was enqueued, and of what the attempt before this one died."""

    traceparent: str | None
    tracestate: str | None
    death: str | None
    cause_of_death: str | None


def find_traced_past(connection: Connection, job_id: int, dispatch_no: int) -> TracedPast | None:
    """What the span of an attempt says of its past; None when the job was deleted."""
    values = {"id": job_id, "dispatch_no": dispatch_no}
    with connection.cursor(row_factory=class_row(TracedPast)) as cursor:
        return cursor.execute(sql.load("find_traced_past"), values).fetchone()


def find_workflow(connection: Connection, job_id: int) -> CurrentWorkflow | None:
    """The run of a job; None when the job is no step."""
    with connection.cursor(row_factory=class_row(CurrentWorkflow)) as cursor:
        return cursor.execute(sql.load("find_workflow_of_job"), {"id": job_id}).fetchone()


def find_own_batch(connection: Connection, job_id: int) -> CurrentBatch | None:
    """The batch of a job; None when the job is no member of one."""
    with connection.cursor(row_factory=class_row(CurrentBatch)) as cursor:
        return cursor.execute(sql.load("find_batch_of_job"), {"id": job_id}).fetchone()
