"""Defines the tables of failures: their groups, how often each failed when, the deploys, and ends by task."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base, one_of
from ..jobs.lifecycle import DEATHS
from .lifecycle import SOURCES, STATES

MOMENT = DateTime(timezone=True)
# A version is a release or a commit. A note is one sentence.
LONGEST_VERSION = 200
LONGEST_NOTE = 1_000


class Deploy(Base):
    """A deploy marker: from here on, workers that start run this version. The order of the ids counts."""

    __tablename__ = "deploys"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    version: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(MOMENT)
    source: Mapped[str] = mapped_column(Text)
    actor: Mapped[str | None] = mapped_column(Text)
    note: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint(one_of("source", SOURCES), name="source_check"),
        CheckConstraint(
            f"length(version) BETWEEN 1 AND {LONGEST_VERSION} AND length(note) <= {LONGEST_NOTE}",
            name="lengths_check",
        ),
        Index("deploys_by_version", "version", "id"),
    )


class Failure(Base):
    """Attempts that failed with the same failure key. `roll_up` counts them.

    What the host's display policy hides is not stored here; the error of each attempt is stored as raised.

    `title` is the error as far as it is the same in all attempts that were looked at. `raised_in` is the
    innermost function of the host's code. The sample is the newest attempt. `number` counts attempts, `jobs`
    counts the jobs that ended `failed` by one of them, the last at `job_failed_at`.

    A failure is resolved in the deploy `resolved_in`, or in the first one after `resolved_after`, which is 0
    when there was none yet. With neither, the workers that start after `decided_at` have the fix.
    """

    __tablename__ = "failures"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    task: Mapped[str] = mapped_column(Text)
    # None when no exception was raised, and for the key "other".
    type: Mapped[str | None] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text)
    raised_in: Mapped[str | None] = mapped_column(Text)
    sample_job_id: Mapped[int] = mapped_column(BigInteger)
    sample_dispatch_no: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(MOMENT)
    number: Mapped[int] = mapped_column(BigInteger)
    jobs: Mapped[int] = mapped_column(BigInteger, server_default="0")
    job_failed_at: Mapped[datetime | None] = mapped_column(MOMENT)
    first_at: Mapped[datetime] = mapped_column(MOMENT)
    last_at: Mapped[datetime] = mapped_column(MOMENT)
    # No foreign keys: retention keeps deploys that a failure names.
    first_deploy: Mapped[int | None] = mapped_column(BigInteger)
    last_deploy: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(Text, server_default="open")
    decided_at: Mapped[datetime | None] = mapped_column(MOMENT)
    decided_by: Mapped[str | None] = mapped_column(Text)
    decided_reason: Mapped[str | None] = mapped_column(Text)
    resolved_in: Mapped[int | None] = mapped_column(BigInteger)
    resolved_after: Mapped[int | None] = mapped_column(BigInteger)
    ignored_until: Mapped[datetime | None] = mapped_column(MOMENT)
    # Ignored until `number` reaches it.
    ignored_until_number: Mapped[int | None] = mapped_column(BigInteger)
    # Ignored until more than so many attempts fail in an hour.
    ignored_rate: Mapped[int | None] = mapped_column(Integer)
    regressed_at: Mapped[datetime | None] = mapped_column(MOMENT)
    regressed_in: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint(one_of("state", STATES), name="state_check"),
        CheckConstraint("octet_length(key) = 16", name="key_check"),
        CheckConstraint(
            "number >= 1 AND last_at >= first_at AND jobs >= 0 AND (jobs = 0) = (job_failed_at IS NULL)",
            name="numbers_check",
        ),
        CheckConstraint(
            "(state = 'open') = (decided_at IS NULL) AND (state = 'open') = (decided_by IS NULL)",
            name="decision_check",
        ),
        CheckConstraint(
            "num_nonnulls(resolved_in, resolved_after) <= (state = 'resolved')::integer"
            " AND num_nonnulls(ignored_until, ignored_until_number, ignored_rate)"
            " = (state = 'ignored')::integer",
            name="until_check",
        ),
        Index("failures_by_state", "state", "last_at"),
        Index("failures_by_task", "task", "created_at"),
        Index("failures_to_retain", "last_at"),
    )


class FailureMinute(Base):
    """How many attempts failed in a minute, by failure. Kept for two days."""

    __tablename__ = "failure_minutes"

    failure_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey(Failure.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    minute: Mapped[datetime] = mapped_column(MOMENT, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("failure_minutes_to_retain", "minute"),)


class FailureHour(Base):
    """How many attempts failed in an hour, by failure."""

    __tablename__ = "failure_hours"

    failure_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey(Failure.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    hour: Mapped[datetime] = mapped_column(MOMENT, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("failure_hours_to_retain", "hour"),)


class FailureDeploy(Base):
    """How many attempts failed on the workers of a deploy, by failure. Deploy 0: no deploy was known."""

    __tablename__ = "failure_deploys"

    failure_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey(Failure.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    deploy_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger)
    first_at: Mapped[datetime] = mapped_column(MOMENT)
    last_at: Mapped[datetime] = mapped_column(MOMENT)


class TaskEnd(Base):
    """How many jobs of a task ended in a quarter of an hour."""

    __tablename__ = "task_ends"

    task: Mapped[str] = mapped_column(Text, primary_key=True)
    quarter: Mapped[datetime] = mapped_column(MOMENT, primary_key=True)
    finished: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    failed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))

    __table_args__ = (Index("task_ends_to_retain", "quarter"),)


class TaskDeath(Base):
    """How many attempts of a task died on a day, by cause, and the most memory that one of them used."""

    __tablename__ = "task_deaths"

    task: Mapped[str] = mapped_column(Text, primary_key=True)
    day: Mapped[datetime] = mapped_column(MOMENT, primary_key=True)
    death: Mapped[str] = mapped_column(Text, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    peak_kb: Mapped[int | None] = mapped_column(BigInteger)
    limit_kb: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint(one_of("death", tuple(DEATHS)), name="death_check"),
        Index("task_deaths_to_retain", "day"),
    )
