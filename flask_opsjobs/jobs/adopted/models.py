"""Maps what only adopted jobs have: RQ's facts about them, what is shown of their payload, and each Redis."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Index,
    Integer,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ...core.db import Base, one_of
from ..lifecycle import RQ_SOURCES, RQ_STRUCTURES

MOMENT = DateTime(timezone=True)
# The times of an adopted job that have a source and may be an interval, by their column of `jobs`.
TIMES = ("created", "dispatched", "started", "ended")


class RqFacts(Base):
    """What RQ says of one adopted job beside its row of `jobs`, and who reported the row's times.

    A time of `jobs` that nobody saw is an interval: it happened after `…_after`, the last look before, and
    until the time in `jobs`, the first look after. Then its source is `observer`. `…_after` is NULL when the
    job was there at the very first look, and for times with another source, which are exact.
    """

    __tablename__ = "rq_facts"

    # No foreign key: a trigger on `jobs` deletes the facts of deleted jobs.
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    # Where its id is in Redis; NULL: in no structure, only its hash is left.
    structure: Mapped[str | None] = mapped_column(Text)
    # RQ's ids of the jobs that it waits for.
    depends_on: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    # Whether it also runs after one of them failed: `allow_failure`.
    allows_failure: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    group_id: Mapped[str | None] = mapped_column(Text)
    # The name of the entry of RQ's cron that enqueued it.
    cron: Mapped[str | None] = mapped_column(Text)
    repeats_left: Mapped[int | None] = mapped_column(Integer)
    retries_left: Mapped[int | None] = mapped_column(Integer)
    rate_limit_key: Mapped[str | None] = mapped_column(Text)
    # How long RQ lets it wait in its queue.
    ttl_seconds: Mapped[int | None] = mapped_column(BigInteger)
    created_source: Mapped[str] = mapped_column(Text)
    dispatched_source: Mapped[str | None] = mapped_column(Text)
    started_source: Mapped[str | None] = mapped_column(Text)
    ended_source: Mapped[str | None] = mapped_column(Text)
    created_after: Mapped[datetime | None] = mapped_column(MOMENT)
    dispatched_after: Mapped[datetime | None] = mapped_column(MOMENT)
    started_after: Mapped[datetime | None] = mapped_column(MOMENT)
    ended_after: Mapped[datetime | None] = mapped_column(MOMENT)
    # When a look or a worker last changed the job or these facts.
    changed_at: Mapped[datetime] = mapped_column(MOMENT)

    __table_args__ = (
        CheckConstraint(one_of("structure", RQ_STRUCTURES), name="structure_check"),
        *(
            CheckConstraint(one_of(f"{time}_source", RQ_SOURCES), name=f"{time}_source_check")
            for time in TIMES
        ),
        *(
            CheckConstraint(
                f"{time}_after IS NULL OR {time}_source = 'observer'", name=f"{time}_after_check"
            )
            for time in TIMES
        ),
        Index(
            "rq_facts_depends_on",
            "depends_on",
            postgresql_using="gin",
            postgresql_where=text("depends_on <> '{}'::text[]"),
        ),
    )


class StoredView(Base):
    """What is shown of an adopted job's payload, as text. Values of hidden keys are never stored.

    NULL: not looked at, or not there. The payload itself stays in Redis.
    """

    __tablename__ = "rq_views"

    # No foreign key: a trigger on `jobs` deletes the views of deleted jobs.
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    function: Mapped[str | None] = mapped_column(Text)
    arguments: Mapped[str | None] = mapped_column(Text)
    result: Mapped[str | None] = mapped_column(Text)


class RqPlace(Base):
    """One Redis that the loops look at.

    Of the loop `adopt`: each structure of it was read at `looked_at` or later. `walked_at` is when all of its
    keys had last been walked through, for jobs that are in no structure. Of the loop `observe`: `identity` is
    what tells one life of the Redis from another, as it was at `seen_at`.
    """

    __tablename__ = "rq_places"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    looked_at: Mapped[datetime | None] = mapped_column(MOMENT)
    walked_at: Mapped[datetime | None] = mapped_column(MOMENT)
    seen_at: Mapped[datetime | None] = mapped_column(MOMENT)
    identity: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
