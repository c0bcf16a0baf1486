"""Bounds a search to jobs of which an attempt has one failure, died of one cause, or failed in one deploy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, LargeBinary, Select, Text, literal, select, tuple_
from sqlalchemy.orm import Session

from ...core import sql
from ..models import Attempt
from .filter import JobFilter
from .index_scan import Range

# So many of the newest attempts are searched.
MOST_ATTEMPTS = 5_000
# A version may be deployed several times: the newest ones are searched.
_MOST_DEPLOYS = 10
_ALL_TIMES = (datetime(MINYEAR, 1, 2, tzinfo=UTC), datetime(MAXYEAR, 12, 30, tzinfo=UTC))


_Attempts = Select[int]


@dataclass(frozen=True)
class JobsOfAttempts:
    """The ids of jobs that have such an attempt. `is_cut` says that more attempts were not searched."""

    ids: Sequence[int]
    is_cut: bool = False


def find_jobs_of_attempts(session: Session, wanted: JobFilter, found: Range) -> JobsOfAttempts:
    """The jobs that have an attempt with the failure, the death and the deploy that the filter names.

    The newest attempts are searched, in the order of the index of the most selective condition: that of the
    failure, of the deploy, or of the cause of death. The others filter what was read.
    """
    key = None
    if wanted.failure is not None:
        key = _read_one(session, "find_failure_key", {"failure": wanted.failure})
        if key is None:
            return JobsOfAttempts(())
    deploys: Sequence[int] = ()
    if wanted.deploy is not None:
        params = {"version": wanted.deploy, "most": _MOST_DEPLOYS}
        rows = session.connection().exec_driver_sql(sql.load("list_deploys_of_version"), params)
        deploys = list(rows.scalars())
        if not deploys:
            return JobsOfAttempts(())
    # Of a failure or a deploy alone, its index has all that is read.
    asked = {Attempt.death: [wanted.death], Attempt.deploy_id: deploys}
    asked = {column: values for column, values in asked.items() if any(values)}
    seen = 0
    ids: dict[int, None] = {}
    for newest in _scans(wanted, found, key, deploys):
        some = newest.add_columns(*asked)
        for job_id, *has in session.execute(some.limit(MOST_ATTEMPTS + 1 - seen)):
            seen += 1
            is_fitting = all(one in values for one, values in zip(has, asked.values(), strict=True))
            if is_fitting and found.low <= job_id < found.high and seen <= MOST_ATTEMPTS:
                ids[job_id] = None
    return JobsOfAttempts(list(ids), seen > MOST_ATTEMPTS)


def _read_one(session: Session, statement: str, params: dict[str, Any]) -> Any:
    return session.connection().exec_driver_sql(sql.load(statement), params).scalars().first()


def _scans(
    wanted: JobFilter, found: Range, key: bytes | None, deploys: Sequence[int]
) -> Iterator[_Attempts]:
    """The selects of attempts to read one after the other, each in the order of its index.

    The leading column is written as a range of one value, as in `scan_index`.
    """
    ids = [literal(bound, BigInteger) for bound in (found.low, found.high)]
    if key is not None:
        yield _scan(Attempt.failure_key, literal(key, LargeBinary), Attempt.job_id, ids)
        return
    for deploy in deploys:
        yield _scan(Attempt.deploy_id, literal(deploy, BigInteger), Attempt.job_id, ids)
    if not deploys:
        times = [literal(bound, Attempt.ended_at.type) for bound in _ALL_TIMES]
        yield _scan(Attempt.death, literal(wanted.death, Text), Attempt.ended_at, times)


def _scan(lead: Any, value: Any, second: Any, bounds: Sequence[Any]) -> _Attempts:
    columns = tuple_(lead, second)
    low, high = (tuple_(value, bound) for bound in bounds)
    chosen = select(Attempt.job_id).where(lead.is_not(None), columns >= low, columns < high)
    return chosen.order_by(lead.desc(), second.desc())
