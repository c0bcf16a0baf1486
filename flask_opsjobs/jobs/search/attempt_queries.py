"""Bounds a search to jobs of which an attempt has one failure, died of one cause, or failed in one deploy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Any

from sqlalchemy import CTE, Select, Text, case, func, literal, select, true, tuple_

from ...core.db import LARGEST_ID
from ..models import Attempt
from .conditions import DEPLOYS, FAILURES
from .filter import JobFilter
from .index_scan import Range

# So many of the newest attempts are searched.
MOST_ATTEMPTS = 5_000
# A version may be deployed several times: the newest ones are searched.
_MOST_DEPLOYS = 10
_ALL_TIMES = (datetime(MINYEAR, 1, 2, tzinfo=UTC), datetime(MAXYEAR, 12, 30, tzinfo=UTC))


@dataclass(frozen=True)
class NewestAttempts:
    """The newest attempts with the failure, the death and the deploy that the filter names.

    They are read in the order of the index of the most selective condition: that of the failure, of the
    deploy, or of the cause of death. The others filter what was read.
    """

    wanted: JobFilter
    found: Range

    def select_unsearched(self) -> Select[int]:
        """What finds one attempt beyond those that are searched, when there are more."""
        return self._select().offset(MOST_ATTEMPTS).limit(1)

    def select_jobs(self, enough: int, offset: int = 0) -> Select[int]:
        """What finds the ids of their jobs, those of the newest attempts first.

        Of more attempts than are searched, at most `enough` jobs.
        """
        attempts = self._select().limit(MOST_ATTEMPTS + 1).cte("attempts")
        attempts = attempts.prefix_with("MATERIALIZED", dialect="postgresql")
        place = func.row_number().over().label("place")
        some = select(attempts.c.job_id, place, *self._are_met(attempts)).subquery()
        fitting = [some.c.place <= MOST_ATTEMPTS, *list(some.c)[2:]]
        number = select(func.count()).select_from(attempts).scalar_subquery()
        limit = case((number > MOST_ATTEMPTS, enough), else_=MOST_ATTEMPTS)
        first = select(some.c.job_id).where(*fitting).group_by(some.c.job_id)
        return first.order_by(func.min(some.c.place)).limit(limit).offset(offset)

    def _are_met(self, attempts: CTE) -> list[Any]:
        """Whether an attempt meets the conditions by which it was not found."""
        met = []
        if self.wanted.death and self._lead != "death":
            met.append((attempts.c.death == self.wanted.death).label("has_died"))
        if self.wanted.deploy and self._lead != "deploy":
            met.append(attempts.c.deploy_id.in_(self._deploys()).label("is_deployed"))
        return met

    @property
    def _lead(self) -> str:
        names = ("failure", "deploy", "death")
        return next(name for name in names if getattr(self.wanted, name) is not None)

    def _select(self) -> Select[int]:
        """The ids of the jobs of all such attempts, and what the other conditions ask for."""
        # Of a failure or a deploy alone, its index has all that is read.
        asked: list[Any] = [] if self._lead == "death" or not self.wanted.death else [Attempt.death]
        asked += [] if self._lead == "deploy" or not self.wanted.deploy else [Attempt.deploy_id]
        match self._lead:
            case "failure":
                key = select(FAILURES.c.key).where(FAILURES.c.id == self.wanted.failure)
                bounds = self.found.bounds
                return _scan(
                    Attempt.failure_key, key.scalar_subquery(), Attempt.job_id, bounds, asked
                )
            case "deploy":
                deploy = self._deploys().subquery("deploy")
                of_one = _scan(
                    Attempt.deploy_id, deploy.c.id, Attempt.job_id, self.found.bounds, asked
                )
                newest = of_one.limit(MOST_ATTEMPTS + 1).lateral()
                return select(newest).select_from(deploy.join(newest, true()))
        times = [literal(bound, Attempt.ended_at.type) for bound in _ALL_TIMES]
        return _scan(
            Attempt.death, literal(self.wanted.death, Text), Attempt.ended_at, times, asked
        )

    def _deploys(self) -> Select[int]:
        """The newest deploys of the version. A range of one value, as in `scan_index`."""
        key, version = tuple_(DEPLOYS.c.version, DEPLOYS.c.id), literal(self.wanted.deploy, Text)
        is_of_it = (key >= tuple_(version, 0), key <= tuple_(version, LARGEST_ID))
        newest = select(DEPLOYS.c.id).where(*is_of_it)
        return newest.order_by(DEPLOYS.c.version.desc(), DEPLOYS.c.id.desc()).limit(_MOST_DEPLOYS)


def _scan(lead: Any, value: Any, second: Any, bounds: Any, asked: list[Any]) -> Select[int]:
    """The attempts with a value, in the order of its index. A range of one value, as in `scan_index`."""
    columns = tuple_(lead, second)
    low, high = (tuple_(value, bound) for bound in bounds)
    chosen = select(Attempt.job_id, *asked).where(lead.is_not(None), columns >= low, columns < high)
    return chosen.order_by(lead.desc(), second.desc())
