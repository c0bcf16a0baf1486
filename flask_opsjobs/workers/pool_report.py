"""Defines what a worker tells of its children with each heartbeat, as plain values and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ..core.words import counted

# The kinds of reasons for which a child may have left before its first job.
FAILED_STARTS = frozenset({"refused", "start", "died", "hook"})


@dataclass(frozen=True)
class ChildReport:
    """A child of a worker at its heartbeat.

    `jobs` is how many it has performed, `rss_kb` its memory; None where the system does not tell it. A busy
    child runs `job_id`, or the plain RQ job `rq_id`, for `seconds`. `is_ready` is False while it starts, and
    when it leaves.
    """

    pid: int
    jobs: int = 0
    is_ready: bool = True
    rss_kb: int | None = None
    job_id: int | None = None
    rq_id: str | None = None
    task: str | None = None
    seconds: float | None = None

    @property
    def is_busy(self) -> bool:
        """Whether it runs something."""
        return self.seconds is not None


@dataclass(frozen=True)
class LeaveCount:
    """Why `count` children left on the day of the heartbeat, the last of them at `at`.

    `sentence` completes "the child …". `task` is the task whose job is to blame; None when it was a plain RQ
    job, or no single job. `is_usual`: the children had performed as many jobs as they may.
    """

    kind: str
    sentence: str
    task: str | None
    count: int
    at: datetime

    @property
    def is_usual(self) -> bool:
        """Whether nothing is wrong: the children had performed as many jobs as they may."""
        return self.kind == "jobs"

    @property
    def says(self) -> str:
        """A sentence for pages and commands."""
        after = f" after {self.task}" if self.task else ""
        last = "the last one" if self.count > 1 else "it"
        return (
            f"{counted(self.count, 'child', 'children')} left today{after}: {last} {self.sentence}."
        )

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> LeaveCount:
        """Return what a heartbeat has stored.

        >>> stored = {"task": "send_mail", "kind": "thread", "sentence": "left 3 threads behind", "count": 41}
        >>> LeaveCount.of_json(stored | {"at": "2026-11-26T09:00:00+00:00"}).says
        '41 children left today after send_mail: the last one left 3 threads behind.'
        """
        return cls(**{**stored, "at": datetime.fromisoformat(stored["at"])})


@dataclass(frozen=True)
class PoolReport:
    """What a worker tells of its children.

    `jobs_per_second` counts the jobs that ended within the last seconds, `from_postgres` and `through_rq`
    those that were taken; None while nothing is known. `reserved` jobs wait in the worker.
    """

    children: Sequence[ChildReport] = ()
    jobs_per_second: float | None = None
    from_postgres: float | None = None
    through_rq: float | None = None
    reserved: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as a heartbeat stores it."""
        return asdict(self)

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> PoolReport:
        """Return what a heartbeat has stored; an empty report when it has told nothing.

        A worker of a newer version may tell more.

        >>> report = PoolReport([ChildReport(7, jobs=3)], jobs_per_second=1.5)
        >>> PoolReport.of_json(report.to_json()) == report
        True
        >>> PoolReport.of_json({"reserved": 2, "of_tomorrow": 1})
        PoolReport(children=[], jobs_per_second=None, from_postgres=None, through_rq=None, reserved=2)
        """
        children = [
            ChildReport(**_known(ChildReport, child)) for child in stored.get("children", ())
        ]
        return cls(**{**_known(cls, stored), "children": children})


def _known(of: type[ChildReport | PoolReport], stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stored[name] for name in of.__dataclass_fields__ if name in stored}
