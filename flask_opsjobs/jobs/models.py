"""Maps the tables of jobs: jobs, attempts, outputs, unique locks, enqueue counts and saved views."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base, one_of
from .lifecycle import DEATHS, ENDED_BY, FINAL, OUTCOMES, STATES, UNSUCCESSFUL, WAITING

MOMENT = DateTime(timezone=True)
# How long a unique lock lasts. `within`: for a time after enqueue; `ended`: until its job ends; `forever`:
# also after its job is deleted.
LIFETIMES = ("within", "ended", "forever")

# What must hold in each row of jobs. Not as constraints: Postgres parses the text of each CHECK of a table
# for every statement that writes a row, and that of a function once per session.
LEGAL = (
    one_of("origin", ("opsjobs", "rq")),
    one_of("state", STATES),
    one_of("ended_by", tuple(ENDED_BY)),
    f"({one_of('state', FINAL)}) = (ended_at IS NOT NULL)",
    "(ended_at IS NULL) = (ended_by IS NULL)",
    "state <> 'queued' OR dispatched_at IS NOT NULL",
    "state <> 'started' OR started_at IS NOT NULL",
    "reserved_by IS NULL OR state = 'queued'",
    "priority BETWEEN 0 AND 9",
    "attempt >= 0 AND max_attempts >= 1",
    "dispatch_no >= 0",
    "failed_deliveries >= 0",
    "lost_reservations >= 0",
    "timeout_seconds > 0",
    one_of("unique_until", LIFETIMES),
    "(unique_key IS NULL) = (unique_until IS NULL)",
    "(cancel_requested_at IS NULL) = (cancel_requested_by IS NULL)"
    " AND (cancel_requested_at IS NULL) = (cancel_reason IS NULL)",
    "(limiter IS NULL) = (partition IS NULL) AND (limiter IS NULL) = (weight IS NULL)",
    "weight >= 1",
    # Only RQ moves an adopted job, so no dispatcher may pick it. Only such a job may end unseen.
    "state <> 'available' OR origin = 'opsjobs'",
    "state <> 'unknown' OR origin = 'rq'",
    "(state = 'unknown') = (ended_by IS NOT DISTINCT FROM 'unseen')",
)
# The columns that these rules name: the parameters of the function.
JUDGED = (
    *("origin", "state", "dispatched_at", "started_at", "ended_at", "ended_by", "reserved_by"),
    *("priority", "attempt", "max_attempts", "dispatch_no", "failed_deliveries"),
    *("lost_reservations", "timeout_seconds", "unique_key", "unique_until"),
    *("cancel_requested_at", "cancel_requested_by", "cancel_reason"),
    *("limiter", "partition", "weight"),
)


class Job(Base):
    """One call of a task."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    origin: Mapped[str] = mapped_column(Text, server_default="opsjobs")
    task: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text)
    lane: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(SmallInteger, server_default="5")
    args: Mapped[dict[str, Any]] = mapped_column(JSONB)
    meta: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    attempt: Mapped[int] = mapped_column(Integer, server_default="0")
    max_attempts: Mapped[int] = mapped_column(Integer)
    dispatch_no: Mapped[int] = mapped_column(BigInteger, server_default="0")
    failed_deliveries: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    # When a worker that lacks the task, or rejects the arguments, first handed the job back.
    first_handed_back_at: Mapped[datetime | None] = mapped_column(MOMENT)
    timeout_seconds: Mapped[int | None] = mapped_column(Integer)
    deadline_at: Mapped[datetime | None] = mapped_column(MOMENT)
    created_at: Mapped[datetime] = mapped_column(MOMENT)
    due_at: Mapped[datetime] = mapped_column(MOMENT)
    dispatched_at: Mapped[datetime | None] = mapped_column(MOMENT)
    started_at: Mapped[datetime | None] = mapped_column(MOMENT)
    ended_at: Mapped[datetime | None] = mapped_column(MOMENT)
    ended_by: Mapped[str | None] = mapped_column(Text)
    ended_reason: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    worker_id: Mapped[int | None] = mapped_column(BigInteger)
    cancel_requested_at: Mapped[datetime | None] = mapped_column(MOMENT)
    unique_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    rq_status: Mapped[str | None] = mapped_column(Text)
    unique_until: Mapped[str | None] = mapped_column(Text)
    cancel_requested_by: Mapped[str | None] = mapped_column(Text)
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    run_again_from: Mapped[int | None] = mapped_column(BigInteger)
    limiter: Mapped[str | None] = mapped_column(Text)
    partition: Mapped[str | None] = mapped_column(Text)
    weight: Mapped[int | None] = mapped_column(Integer)
    cron_entry: Mapped[str | None] = mapped_column(Text)
    # No foreign keys: a deleted job stays in its graph.
    workflow_id: Mapped[int | None] = mapped_column(BigInteger)
    batch_id: Mapped[int | None] = mapped_column(BigInteger)
    # The worker that has taken a queued job and has not begun it; only this worker moves the row.
    reserved_by: Mapped[int | None] = mapped_column(BigInteger)
    # How often a worker died with the job reserved, since its last outcome.
    lost_reservations: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    # Of an adopted job: which Redis, by name, and RQ's id and time of creation there. RQ uses an id again
    # after the job's end, and keeps `created_at` when it retries, repeats or requeues.
    rq_place: Mapped[str | None] = mapped_column(Text)
    rq_id: Mapped[str | None] = mapped_column(Text)
    rq_created_at: Mapped[datetime | None] = mapped_column(MOMENT)
    # The trace context in which the job was enqueued, as W3C Trace Context writes it.
    traceparent: Mapped[str | None] = mapped_column(Text, deferred=True)
    tracestate: Mapped[str | None] = mapped_column(Text, deferred=True)

    __table_args__ = (
        CheckConstraint(f"opsjobs.is_legal_job({', '.join(JUDGED)})", name="is_legal_check"),
        # Each index is named after the rows that it finds, or the columns by which it finds them.
        Index(
            "jobs_due",
            "lane",
            "priority",
            "due_at",
            "id",
            postgresql_where=text("state = 'available'"),
        ),
        Index(
            "jobs_to_stage",
            "due_at",
            postgresql_where=text(
                f"{one_of('state', ('scheduled', 'retryable'))} AND origin = 'opsjobs'"
            ),
        ),
        # No adopted job is in these two: however many wait in RQ, they cost dispatch nothing.
        Index(
            "jobs_queued",
            "queue",
            "dispatched_at",
            postgresql_where=text("state = 'queued' AND origin = 'opsjobs'"),
        ),
        Index("jobs_started", "worker_id", postgresql_where=text("state = 'started'")),
        Index(
            "jobs_deadlines",
            "deadline_at",
            postgresql_where=text(f"deadline_at IS NOT NULL AND {one_of('state', WAITING)}"),
        ),
        Index("jobs_by_state", "state", "id"),
        Index("jobs_by_queue", "queue", "id"),
        Index("jobs_by_task", "task", "id"),
        Index("jobs_to_retain", "state", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
        Index(
            "jobs_args", "args", postgresql_using="gin", postgresql_ops={"args": "jsonb_path_ops"}
        ),
        Index(
            "jobs_tags",
            "tags",
            postgresql_using="gin",
            postgresql_where=text("tags <> '{}'::text[]"),
        ),
        Index("jobs_with_error", "id", postgresql_where=text("error IS NOT NULL")),
        Index("jobs_adopted", "id", postgresql_where=text("origin = 'rq'")),
        Index(
            "jobs_of_rq",
            "rq_place",
            "rq_id",
            "rq_created_at",
            unique=True,
            postgresql_where=text("origin = 'rq'"),
            postgresql_nulls_not_distinct=True,
        ),
        Index(
            "jobs_open_of_rq",
            "rq_place",
            "id",
            postgresql_where=text("origin = 'rq' AND ended_at IS NULL"),
        ),
        Index(
            "jobs_unsuccessful_by_task",
            "state",
            "task",
            "id",
            postgresql_where=text(one_of("state", UNSUCCESSFUL)),
        ),
        Index(
            "jobs_unsuccessful_by_queue",
            "state",
            "queue",
            "id",
            postgresql_where=text(one_of("state", UNSUCCESSFUL)),
        ),
        Index(
            "jobs_run_again", "run_again_from", postgresql_where=text("run_again_from IS NOT NULL")
        ),
        Index(
            "jobs_of_cron",
            "cron_entry",
            "id",
            postgresql_where=text("cron_entry IS NOT NULL AND ended_at IS NULL"),
        ),
        Index(
            "jobs_of_run",
            "workflow_id",
            "state",
            "id",
            postgresql_where=text("workflow_id IS NOT NULL"),
        ),
        Index(
            "jobs_of_batch",
            "batch_id",
            "state",
            "id",
            postgresql_where=text("batch_id IS NOT NULL"),
        ),
        Index(
            "jobs_open_of_batch",
            "batch_id",
            "id",
            postgresql_where=text("batch_id IS NOT NULL AND ended_at IS NULL"),
        ),
        Index(
            "jobs_alone_to_retain",
            "state",
            "ended_at",
            postgresql_where=text(
                "ended_at IS NOT NULL AND workflow_id IS NULL AND batch_id IS NULL"
            ),
        ),
        Index(
            "jobs_limited",
            "limiter",
            "partition",
            "state",
            postgresql_where=text("limiter IS NOT NULL AND state IN ('available', 'queued')"),
        ),
    )


def _make_is_legal_job() -> str:
    """The statement that creates the function with the rules."""
    columns, dialect = Job.__table__.c, postgresql.dialect()  # type: ignore[no-untyped-call]
    parameters = ", ".join(f"{name} {columns[name].type.compile(dialect)}" for name in JUDGED)
    return f"""
        CREATE FUNCTION opsjobs.is_legal_job({parameters})
        RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
        BEGIN
            RETURN {" AND ".join(f"({rule})" for rule in LEGAL)};
        END
        $$"""


_IS_LEGAL_JOB = DDL(_make_is_legal_job())  # type: ignore[no-untyped-call]
event.listen(Base.metadata, "before_create", _IS_LEGAL_JOB)


class Attempt(Base):
    """One run of a job: when it began and ended, and in which process. `dispatch_no` is its fence.

    RQ does not number the runs of an adopted job: `dispatch_no` and `attempt` are both the number of the run,
    from 1, and `execution_id` is RQ's name of it. Attempts that RQ no longer kept when the job was adopted
    have no row. `worker_id` is NULL when RQ reported the run and not a worker of ours. When nobody saw the
    end of such a run, `ended_at` is the look that missed it, and `ended_after` in `death_facts` the last one
    before.
    """

    __tablename__ = "attempts"

    # No foreign key: a trigger on `jobs` deletes the attempts of deleted jobs.
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    dispatch_no: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(Integer)
    worker_id: Mapped[int | None] = mapped_column(BigInteger)
    worker: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(MOMENT)
    ended_at: Mapped[datetime | None] = mapped_column(MOMENT)
    outcome: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    traceback: Mapped[str | None] = mapped_column(Text)
    log_tail: Mapped[str | None] = mapped_column(Text)
    cause_of_death: Mapped[str | None] = mapped_column(Text)
    max_rss_kb: Mapped[int | None] = mapped_column(BigInteger)
    progress_done: Mapped[int | None] = mapped_column(BigInteger)
    progress_total: Mapped[int | None] = mapped_column(BigInteger)
    progress_note: Mapped[str | None] = mapped_column(Text)
    pid: Mapped[int | None] = mapped_column(Integer)
    execution_id: Mapped[str | None] = mapped_column(Text)
    # What failed, as `failure_key.py` makes it: sixteen bytes, the first is the number of the algorithm.
    failure_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    # Whether roll_up has counted it among the failures.
    is_counted: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    death: Mapped[str | None] = mapped_column(Text)
    death_facts: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    # The deploy that its worker ran. Only of attempts that failed; roll_up writes it.
    deploy_id: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint(one_of("outcome", OUTCOMES), name="outcome_check"),
        CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="end_has_outcome_check"),
        CheckConstraint("attempt >= 1 AND dispatch_no >= 1", name="numbers_check"),
        CheckConstraint(one_of("death", tuple(DEATHS)), name="death_check"),
        Index(
            "attempts_to_count",
            "ended_at",
            postgresql_where=text("failure_key IS NOT NULL AND NOT is_counted"),
        ),
        Index(
            "attempts_by_failure",
            "failure_key",
            "job_id",
            postgresql_where=text("failure_key IS NOT NULL"),
        ),
        Index("attempts_by_death", "death", "ended_at", postgresql_where=text("death IS NOT NULL")),
        Index(
            "attempts_by_deploy",
            "deploy_id",
            "job_id",
            postgresql_where=text("deploy_id IS NOT NULL"),
        ),
        Index("attempts_repeated", "ended_at", postgresql_where=text("attempt >= 2")),
    )


class Output(Base):
    """The value that a function returned, when its task is declared with `record_output=True`."""

    __tablename__ = "outputs"

    job_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    value: Mapped[Any | None] = mapped_column(JSONB)
    size_bytes: Mapped[int] = mapped_column(Integer)
    omitted: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(MOMENT)

    __table_args__ = (
        CheckConstraint("size_bytes >= 0", name="size_check"),
        CheckConstraint("value IS NULL OR omitted IS NULL", name="value_or_omitted_check"),
        Index("outputs_to_retain", "created_at"),
    )


class UniqueLock(Base):
    """The lock of a unique call: its keyed hash, its job and its expiry.

    No foreign key: the lock may outlive its job.
    """

    __tablename__ = "unique_locks"

    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigInteger)
    until: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime | None] = mapped_column(MOMENT)
    created_at: Mapped[datetime] = mapped_column(MOMENT)

    __table_args__ = (
        CheckConstraint(one_of("until", LIFETIMES), name="until_check"),
        CheckConstraint("(until = 'within') = (expires_at IS NOT NULL)", name="expiry_check"),
        Index("unique_locks_by_job", "job_id"),
        Index(
            "unique_locks_to_retain", "expires_at", postgresql_where=text("expires_at IS NOT NULL")
        ),
    )


class Callback(Base):
    """A job that reports an end of a run or batch to the host: one per end and event."""

    __tablename__ = "callbacks"

    of: Mapped[str] = mapped_column(Text, primary_key=True)
    of_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    end_no: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    event: Mapped[str] = mapped_column(Text, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint(one_of("of", ("workflow", "batch")), name="of_check"),
        CheckConstraint(one_of("event", ("end", "failure")), name="event_check"),
        Index("callbacks_by_job", "job_id"),
    )


class JobCountDelta(Base):
    """How many jobs of a queue one statement enqueued or deleted. Appended; `roll_up` sums the rows up."""

    __tablename__ = "job_count_deltas"

    at: Mapped[datetime] = mapped_column(MOMENT)
    queue: Mapped[str] = mapped_column(Text)
    enqueued: Mapped[int] = mapped_column(BigInteger, server_default="0")
    deleted: Mapped[int] = mapped_column(BigInteger, server_default="0")
    # Whose jobs were enqueued.
    task: Mapped[str | None] = mapped_column(Text)

    # The ORM demands a key; the table has none.
    __mapper_args__ = {"primary_key": [at, queue, enqueued, deleted]}  # noqa: RUF012
    __table_args__ = (CheckConstraint("enqueued >= 0 AND deleted >= 0", name="positive_check"),)


class EnqueueCount(Base):
    """How many jobs of a queue were enqueued and deleted per minute. The minute 1970 sums up old minutes."""

    __tablename__ = "enqueue_counts"

    minute: Mapped[datetime] = mapped_column(MOMENT, primary_key=True)
    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    enqueued: Mapped[int] = mapped_column(BigInteger, server_default="0")
    deleted: Mapped[int] = mapped_column(BigInteger, server_default="0")

    __table_args__ = (CheckConstraint("enqueued >= 0 AND deleted >= 0", name="positive_check"),)


# The pages whose filters can be saved.
VIEWED = ("jobs", "audit")


class SavedView(Base):
    """A filter that a person saved under a name. `page` says of which page it is."""

    __tablename__ = "saved_views"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    owner: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    query: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(MOMENT)
    page: Mapped[str] = mapped_column(Text, server_default="jobs")

    __table_args__ = (
        CheckConstraint(one_of("page", VIEWED), name="page_check"),
        UniqueConstraint("owner", "page", "name"),
    )
