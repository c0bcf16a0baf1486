"""Maps the tables of limits: limiters, buckets, leases of running jobs, counts of starts and rejections."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base, one_of

MOMENT = DateTime(timezone=True)
WHEN_FULL = ("hold", "reject")

_COOLDOWN_IS_WHOLE = (
    "(cooldown_until IS NULL) = (cooldown_at IS NULL)"
    " AND (cooldown_until IS NULL) = (cooldown_by IS NULL)"
    " AND (cooldown_until IS NULL) = (cooldown_reason IS NULL)"
)
# An admission that is taken back counts as -1, maybe in a later minute.
_COUNTS_ARE_POSITIVE = "recalled >= 0 AND rejected >= 0"


class Limiter(Base):
    """The last declaration of a limiter, and an operator's cooldown of the whole limiter.

    `rate` starts per `per_seconds`, at most `burst` at once; `concurrency` at the same time; either half may
    be NULL.
    `partition_by` and `weight_by` say in words how partition and weight are chosen. `previous` is the
    declaration before `changed_at`.
    """

    __tablename__ = "limiters"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    rate: Mapped[float | None] = mapped_column(Double)
    per_seconds: Mapped[float | None] = mapped_column(Double)
    burst: Mapped[int | None] = mapped_column(Integer)
    concurrency: Mapped[int | None] = mapped_column(Integer)
    partition_by: Mapped[str | None] = mapped_column(Text)
    weight_by: Mapped[str | None] = mapped_column(Text)
    when_full: Mapped[str] = mapped_column(Text)
    declared_at: Mapped[datetime] = mapped_column(MOMENT)
    declared_by: Mapped[str] = mapped_column(Text)
    changed_at: Mapped[datetime | None] = mapped_column(MOMENT)
    previous: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    cooldown_at: Mapped[datetime | None] = mapped_column(MOMENT)
    cooldown_until: Mapped[datetime | None] = mapped_column(MOMENT)
    cooldown_by: Mapped[str | None] = mapped_column(Text)
    cooldown_reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint(
            "(rate IS NULL) = (per_seconds IS NULL) AND (rate IS NULL) = (burst IS NULL)",
            name="rate_is_whole_check",
        ),
        CheckConstraint(
            "rate IS NOT NULL OR concurrency IS NOT NULL", name="limits_something_check"
        ),
        CheckConstraint(
            "rate > 0 AND per_seconds > 0 AND burst >= 1 AND concurrency >= 1",
            name="positive_check",
        ),
        CheckConstraint("(changed_at IS NULL) = (previous IS NULL)", name="changed_check"),
        CheckConstraint(one_of("when_full", WHEN_FULL), name="when_full_check"),
        CheckConstraint(_COOLDOWN_IS_WHOLE, name="cooldown_check"),
    )


class Bucket(Base):
    """The bucket of one partition ('' without partitions) after its last claim.

    Without a row it is full and unused. `tokens` may be below 0: a claim may take a token shortly before it
    is refilled; the job then waits for it.
    """

    __tablename__ = "buckets"

    limiter: Mapped[str] = mapped_column(Text, primary_key=True)
    partition: Mapped[str] = mapped_column(Text, primary_key=True)
    tokens: Mapped[float | None] = mapped_column(Double)
    refilled_at: Mapped[datetime | None] = mapped_column(MOMENT)
    last_used_at: Mapped[datetime] = mapped_column(MOMENT)
    admitted: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cooldown_at: Mapped[datetime | None] = mapped_column(MOMENT)
    cooldown_until: Mapped[datetime | None] = mapped_column(MOMENT)
    cooldown_by: Mapped[str | None] = mapped_column(Text)
    cooldown_reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint("(tokens IS NULL) = (refilled_at IS NULL)", name="refill_check"),
        CheckConstraint(_COOLDOWN_IS_WHOLE, name="cooldown_check"),
        Index(
            "buckets_cooling",
            "limiter",
            "partition",
            postgresql_where=text("cooldown_until IS NOT NULL"),
        ),
    )


class Lease(Base):
    """The place that one attempt holds in a limiter from its claim to its end. Only its end removes it,
    or an operator who releases one that leaked.
    """

    __tablename__ = "leases"

    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    dispatch_no: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    limiter: Mapped[str] = mapped_column(Text)
    partition: Mapped[str] = mapped_column(Text)
    weight: Mapped[int] = mapped_column(Integer)
    taken_at: Mapped[datetime] = mapped_column(MOMENT)

    __table_args__ = (
        CheckConstraint("weight >= 1", name="weight_check"),
        Index("leases_by_bucket", "limiter", "partition", "taken_at"),
    )


class LimitCountDelta(Base):
    """The counts of one claim, return or rejection.

    Only appended; the roll_up loop adds them to `limit_minutes`.
    """

    __tablename__ = "limit_count_deltas"

    at: Mapped[datetime] = mapped_column(MOMENT)
    limiter: Mapped[str] = mapped_column(Text)
    admitted: Mapped[int] = mapped_column(Integer, server_default="0")
    recalled: Mapped[int] = mapped_column(Integer, server_default="0")
    rejected: Mapped[int] = mapped_column(Integer, server_default="0")

    # The ORM demands a key; the table has none.
    __mapper_args__ = {"primary_key": [at, limiter, admitted, recalled, rejected]}  # noqa: RUF012
    __table_args__ = (CheckConstraint(_COUNTS_ARE_POSITIVE, name="positive_check"),)


class LimitMinute(Base):
    """How many jobs a limiter admitted in a minute, how many a claim recalled, how many calls it rejected."""

    __tablename__ = "limit_minutes"

    limiter: Mapped[str] = mapped_column(Text, primary_key=True)
    minute: Mapped[datetime] = mapped_column(MOMENT, primary_key=True)
    admitted: Mapped[int] = mapped_column(BigInteger, server_default="0")
    recalled: Mapped[int] = mapped_column(BigInteger, server_default="0")
    rejected: Mapped[int] = mapped_column(BigInteger, server_default="0")

    __table_args__ = (
        CheckConstraint(_COUNTS_ARE_POSITIVE, name="positive_check"),
        Index("limit_minutes_to_retain", "minute"),
    )


class LimitRejection(Base):
    """One call that raised `LimitReached`, with the values read then.

    Written also when the host rolls back.
    """

    __tablename__ = "limit_rejections"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    at: Mapped[datetime] = mapped_column(MOMENT)
    limiter: Mapped[str] = mapped_column(Text)
    partition: Mapped[str] = mapped_column(Text)
    task: Mapped[str] = mapped_column(Text)
    weight: Mapped[int] = mapped_column(Integer)
    code: Mapped[str] = mapped_column(Text)
    read: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))

    __table_args__ = (
        CheckConstraint("weight >= 1", name="weight_check"),
        Index("limit_rejections_by_limiter", "limiter", "id"),
        Index("limit_rejections_to_retain", "at"),
    )
