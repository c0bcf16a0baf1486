"""Counts what a worker takes and performs, for the report that goes with its heartbeat."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from ...jobs.perform.outcomes import Outcome
from ...workers.pool_report import ChildReport, PoolReport
from .heartbeat import EndedJobs
from .places import Place

# Rates are means over so many reports, which are made once a second.
_REPORTS = 10


class Tally:
    """Counts since the worker started. For the main thread only.

    >>> tally = Tally()
    >>> tally.report([], reserved=0, now=1.0).jobs_per_second is None
    True
    >>> tally.ended += 30
    >>> tally.report([], reserved=4, now=2.0).jobs_per_second
    30.0
    """

    def __init__(self) -> None:
        self.ended = 0
        self.from_postgres = 0
        self.through_rq = 0
        self.jobs = EndedJobs()
        self._moments: deque[tuple[float, int, int, int]] = deque(maxlen=_REPORTS + 1)

    def note(self, outcome: Outcome, seconds: float) -> None:
        """Note that a managed job has ended here after so long."""
        before = self.jobs
        is_finished = outcome.kind == "returned"
        self.jobs = EndedJobs(
            before.finished + is_finished,
            before.failed + (not is_finished),
            before.seconds + max(0.0, seconds),
        )

    def report(self, places: Iterable[Place], reserved: int, now: float) -> PoolReport:
        """Return what the worker tells of itself. Called once a second. `reserved` jobs wait for a child."""
        self._moments.append((now, self.ended, self.from_postgres, self.through_rq))
        return PoolReport(
            [report for place in places if (report := _report(place, now)) is not None],
            jobs_per_second=self._rate(1),
            from_postgres=self._rate(2),
            through_rq=self._rate(3),
            reserved=reserved,
        )

    def _rate(self, count: int) -> float | None:
        first, last = self._moments[0], self._moments[-1]
        seconds = last[0] - first[0]
        return round((last[count] - first[count]) / seconds, 1) if seconds > 0 else None


def _report(place: Place, now: float) -> ChildReport | None:
    child, (sent, began) = place.child, place.current()
    if child is None:
        return None
    report = ChildReport(child.pid, child.jobs, place.is_ready and place.leaving is None)
    if sent is None:
        return report
    report = replace(report, seconds=round(now - (began or sent.at), 3))
    if sent.job is not None:
        return replace(report, job_id=sent.job.order.id, task=sent.job.order.task)
    if sent.plain is not None:
        return replace(report, rq_id=sent.plain.rq_id)
    return report
