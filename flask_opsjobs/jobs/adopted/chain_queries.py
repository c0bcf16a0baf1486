"""Reads the chain of an adopted job: what RQ has it wait for, and what waits for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from ...core import sql

# So many jobs are shown before a job and behind it.
MOST_RELATIVES = 20


@dataclass(frozen=True)
class Relative:
    """A parent or a dependent of an adopted job. Without a row of ours only `rq_id` is known."""

    rq_id: str
    id: int | None = None
    task: str | None = None
    state: str | None = None
    ended_at: datetime | None = None

    @property
    def name(self) -> str:
        """The job as sentences name it."""
        return f"RQ job {self.rq_id}" if self.id is None else f"job {self.id}"

    def never_releases(self, *, allows_failure: bool) -> bool:
        """Whether RQ never queues what waits for it, unless somebody acts.

        A failed job releases those that allow failures; a canceled one, and one that is gone, release nobody.
        """
        if self.state == "failed":
            return not allows_failure
        return self.state in (None, "canceled", "unknown")


def find_parents(session: Session, job_id: int) -> Sequence[Relative]:
    """The jobs that RQ has it wait for, in RQ's order, at most 20."""
    return list_parents(session, [job_id]).get(job_id, ())


def list_parents(session: Session, ids: Sequence[int]) -> Mapping[int, Sequence[Relative]]:
    """The same of each of these jobs, by its id. Jobs that wait for none are left out."""
    parameters = {"ids": list(ids), "most": MOST_RELATIVES}
    rows = session.connection().exec_driver_sql(sql.load("list_parents_of_jobs"), parameters)
    found: dict[int, list[Relative]] = {}
    for job_id, *parent in rows:
        found.setdefault(job_id, []).append(Relative(*parent))
    return found


def find_dependents(session: Session, job_id: int) -> Sequence[Relative]:
    """The jobs that RQ has wait for it, at most 20."""
    parameters = {"id": job_id, "most": MOST_RELATIVES}
    rows = session.connection().exec_driver_sql(sql.load("find_dependents_of_job"), parameters)
    return [Relative(*row) for row in rows]
