"""Maps the tables of workflows: runs, their steps and edges, end events that nobody advanced, and signals."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base, one_of
from .lifecycle import ENDED_BY, FINAL, KINDS, ON_FAILURE, OUTCOMES, STATES

MOMENT = DateTime(timezone=True)


class WorkflowRecord(Base):
    """One run: what a host started. `shape` is a hash of the names, tasks and edges of its steps.

    `end_no` counts its ends: a run that was reopened ends again. `trouble` says why it cannot be advanced.
    """

    __tablename__ = "workflows"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    context: Mapped[dict[str, Any]] = mapped_column(JSONB)
    shape: Mapped[bytes] = mapped_column(LargeBinary)
    steps: Mapped[int] = mapped_column(Integer)
    settled: Mapped[int] = mapped_column(Integer, server_default="0")
    finished: Mapped[int] = mapped_column(Integer, server_default="0")
    failed: Mapped[int] = mapped_column(Integer, server_default="0")
    canceled: Mapped[int] = mapped_column(Integer, server_default="0")
    created_at: Mapped[datetime] = mapped_column(MOMENT)
    started_at: Mapped[datetime | None] = mapped_column(MOMENT)
    ended_at: Mapped[datetime | None] = mapped_column(MOMENT)
    end_no: Mapped[int] = mapped_column(Integer, server_default="0")
    ended_by: Mapped[str | None] = mapped_column(Text)
    ended_by_step: Mapped[str | None] = mapped_column(Text)
    deadline_at: Mapped[datetime | None] = mapped_column(MOMENT)
    cancel_requested_at: Mapped[datetime | None] = mapped_column(MOMENT)
    cancel_requested_by: Mapped[str | None] = mapped_column(Text)
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    on_end: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    unique_key: Mapped[str | None] = mapped_column(Text)
    run_again_from: Mapped[int | None] = mapped_column(BigInteger)
    trouble: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint(one_of("state", STATES), name="state_check"),
        CheckConstraint(one_of("ended_by", tuple(ENDED_BY)), name="ended_by_check"),
        CheckConstraint(
            f"({one_of('state', FINAL)}) = (ended_at IS NOT NULL)", name="final_has_end_check"
        ),
        CheckConstraint(
            "(ended_at IS NULL) = (ended_by IS NULL) AND (ended_by_step IS NULL OR ended_at IS NOT NULL)",
            name="end_is_whole_check",
        ),
        CheckConstraint(
            "steps >= 1 AND finished >= 0 AND failed >= 0 AND canceled >= 0"
            " AND settled = finished + failed + canceled AND settled <= steps",
            name="counts_check",
        ),
        CheckConstraint("end_no >= 0", name="end_no_check"),
        CheckConstraint(
            "(cancel_requested_at IS NULL) = (cancel_requested_by IS NULL)"
            " AND (cancel_requested_at IS NULL) = (cancel_reason IS NULL)",
            name="cancel_request_is_whole_check",
        ),
        CheckConstraint(
            "state <> 'canceling' OR cancel_requested_at IS NOT NULL", name="canceling_check"
        ),
        Index(
            "workflows_open_key",
            "name",
            "unique_key",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("workflows_by_state", "state", "id"),
        Index("workflows_by_name", "name", "id"),
        Index(
            "workflows_deadlines",
            "deadline_at",
            postgresql_where=text("deadline_at IS NOT NULL AND ended_at IS NULL"),
        ),
        Index("workflows_with_trouble", "id", postgresql_where=text("trouble IS NOT NULL")),
        Index(
            "workflows_to_retain",
            "state",
            "ended_at",
            postgresql_where=text("ended_at IS NOT NULL"),
        ),
    )


class StepRecord(Base):
    """One job of a run. It has no foreign key to its job: a deleted job stays in its graph.

    `pending` is the number of edges that keep it waiting. `settled` is the state in which its end was passed
    on; null until then. `settled_by` is the step that caused it to be canceled. `passed_to` is the last step
    to which its end was passed on, while others are left. `takes` maps each argument that is the result of
    another step to that step and the path in its result.

    Postgres computes two columns. `is_overlooked`: the step waits for nothing, and nobody has released it
    yet; `advance` releases such steps. `is_wait_left`: it is a wait that has not settled.
    """

    __tablename__ = "steps"

    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    workflow_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey(WorkflowRecord.id, ondelete="CASCADE")
    )
    name: Mapped[str] = mapped_column(Text)
    position: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(Text)
    map_of: Mapped[int | None] = mapped_column(BigInteger)
    element: Mapped[int | None] = mapped_column(Integer)
    pending: Mapped[int] = mapped_column(Integer)
    settled: Mapped[str | None] = mapped_column(Text)
    settled_at: Mapped[datetime | None] = mapped_column(MOMENT)
    settled_by: Mapped[int | None] = mapped_column(BigInteger)
    passed_to: Mapped[int | None] = mapped_column(BigInteger)
    released_at: Mapped[datetime | None] = mapped_column(MOMENT)
    expanded_at: Mapped[datetime | None] = mapped_column(MOMENT)
    may_fail: Mapped[bool] = mapped_column(server_default=text("false"))
    takes: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    deadline_seconds: Mapped[float | None] = mapped_column(Double)
    delay_seconds: Mapped[float | None] = mapped_column(Double)
    signals: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    key: Mapped[str] = mapped_column(Text, server_default="")
    timeout_seconds: Mapped[float | None] = mapped_column(Double)
    opened_at: Mapped[datetime | None] = mapped_column(MOMENT)
    is_overlooked: Mapped[bool | None] = mapped_column(
        Computed("pending = 0 AND released_at IS NULL AND settled IS NULL", persisted=True)
    )
    is_wait_left: Mapped[bool | None] = mapped_column(
        Computed("kind = 'wait' AND settled IS NULL", persisted=True)
    )

    __table_args__ = (
        UniqueConstraint("workflow_id", "name", name="steps_name_key"),
        CheckConstraint(one_of("kind", tuple(KINDS)), name="kind_check"),
        CheckConstraint(
            "(kind = 'member') = (map_of IS NOT NULL) AND (map_of IS NULL) = (element IS NULL)",
            name="member_check",
        ),
        CheckConstraint("pending >= 0", name="pending_check"),
        CheckConstraint(one_of("settled", FINAL), name="settled_check"),
        CheckConstraint("(settled IS NULL) = (settled_at IS NULL)", name="settled_is_whole_check"),
        CheckConstraint("(kind = 'wait') = (signals IS NOT NULL)", name="wait_check"),
        CheckConstraint(
            "deadline_seconds > 0 AND delay_seconds >= 0 AND timeout_seconds > 0",
            name="seconds_check",
        ),
        Index(
            "steps_overlooked",
            "workflow_id",
            "job_id",
            postgresql_where=text("is_overlooked"),
        ),
        Index(
            "steps_waits_left",
            "key",
            postgresql_where=text("is_wait_left"),
        ),
        Index("steps_waits", "key", "job_id", postgresql_where=text("kind = 'wait'")),
        Index(
            "steps_open_waits_of_run",
            "workflow_id",
            postgresql_where=text("is_wait_left AND opened_at IS NOT NULL"),
        ),
        Index("steps_of_map", "map_of", "element", postgresql_where=text("map_of IS NOT NULL")),
    )


class EdgeRecord(Base):
    """One step waits for another. `on_failure` says what happens when that one does not finish.

    No foreign keys, which would slow down the start of a run. Whoever deletes a run deletes its edges first.
    """

    __tablename__ = "edges"

    from_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    to_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    on_failure: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint(one_of("on_failure", ON_FAILURE), name="on_failure_check"),
        Index("edges_by_target", "to_id"),
    )


class WorkflowEndEvent(Base):
    """Steps of this run ended. Appended by the statement that ended them; `advance` deletes it."""

    __tablename__ = "workflow_end_events"

    workflow_id: Mapped[int] = mapped_column(BigInteger)
    job_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))

    # The ORM demands a key; the table has none.
    __mapper_args__ = {"primary_key": [workflow_id, job_ids]}  # noqa: RUF012
    __table_args__ = (
        CheckConstraint("cardinality(job_ids) >= 1", name="job_ids_check"),
        Index("workflow_end_events_by_run", "workflow_id"),
    )


class SignalRecord(Base):
    """A signal, kept as evidence. `run` names the only run that it is for."""

    __tablename__ = "signals"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text, server_default="")
    run: Mapped[int | None] = mapped_column(BigInteger)
    dedupe: Mapped[str | None] = mapped_column(Text)
    payload: Mapped[Any | None] = mapped_column(JSONB)
    at: Mapped[datetime] = mapped_column(MOMENT)
    by: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    taken_by: Mapped[int | None] = mapped_column(BigInteger)
    taken_at: Mapped[datetime | None] = mapped_column(MOMENT)
    duplicates: Mapped[int] = mapped_column(Integer, server_default="0")
    last_duplicate_at: Mapped[datetime | None] = mapped_column(MOMENT)

    __table_args__ = (
        UniqueConstraint("taken_by", name="signals_taken_by_key"),
        CheckConstraint(one_of("outcome", tuple(OUTCOMES)), name="outcome_check"),
        CheckConstraint(
            "(outcome = 'taken') = (taken_by IS NOT NULL) AND (taken_by IS NULL) = (taken_at IS NULL)",
            name="taken_check",
        ),
        CheckConstraint(
            "(duplicates > 0) = (last_duplicate_at IS NOT NULL)", name="duplicates_check"
        ),
        Index(
            "signals_dedupe",
            "name",
            "key",
            "dedupe",
            unique=True,
            postgresql_where=text("dedupe IS NOT NULL"),
        ),
        Index(
            "signals_to_match",
            "name",
            "key",
            "run",
            "id",
            postgresql_where=text("outcome IN ('early', 'ambiguous')"),
        ),
        Index("signals_by_outcome", "outcome", "id"),
        Index("signals_to_retain", "at"),
    )
