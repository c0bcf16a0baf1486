"""Reads a list of jobs: a page, the counts of its tabs, and how far a search looked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from .. import queries
from ..lifecycle import STATES
from ..rows import Count, JobPage
from . import hits as search_hits
from .filter import JobFilter
from .hits import Searched
from .index_scan import Range

IsShown = Callable[[str], bool]


@dataclass(frozen=True)
class JobList:
    """A page of a list, the number of jobs in each state, and how far the search looked."""

    page: JobPage
    counts: dict[str, Count]
    searched: Searched


@dataclass(frozen=True)
class Hits:
    """Ids and states of the jobs that a search found, the newest first, and how far it looked."""

    jobs: Sequence[tuple[int, str]]
    searched: Searched

    @property
    def ids(self) -> Sequence[int]:
        """The ids, the newest first."""
        return [job_id for job_id, _ in self.jobs]

    def in_state(self, state: str) -> Hits:
        """The hits in this state."""
        return Hits([job for job in self.jobs if job[1] == state], self.searched)


def list_jobs(
    session: Session,
    wanted: JobFilter,
    now: datetime,
    *,
    before: int | None = None,
    after: int | None = None,
    is_shown: IsShown,
) -> JobList:
    """The page of any filter, as `page_of_jobs` returns it, and the counts of its tabs.

    `is_shown` tells whether an error contains the searched text as the viewer sees it: hidden text is not
    searchable.
    """
    if not wanted.is_search:
        page = queries.page_of_jobs(session, wanted, now, before=before, after=after)
        return JobList(page, queries.count_jobs_by_state(session, wanted, now), Searched())
    everything = find_hits(session, wanted.but(state=None), now, is_shown)
    counts = _count(everything)
    found = everything
    if wanted.state and everything.searched.stopped_at_hits:  # look for more of this state
        found = find_hits(session, wanted, now, is_shown)
        counts |= {wanted.state: _count(found)[wanted.state]}
    elif wanted.state:
        found = everything.in_state(wanted.state)
    page = _page(session, found.ids, wanted.limit, before, after)
    return JobList(page, counts, found.searched)


def find_hits(session: Session, wanted: JobFilter, now: datetime, is_shown: IsShown) -> Hits:
    """The jobs that a search finds within its limits."""
    found = queries.range_of(session, wanted, now)
    if search_hits.is_by_errors(wanted):
        return _find_by_errors(session, wanted, found, is_shown)
    # These GIN indexes need bitmap scans. No other index may be scanned instead.
    _allow(session, bitmapscan="on", indexscan="off")
    rows = session.execute(search_hits.hits(wanted, found)).all()
    _allow(session, bitmapscan="off", indexscan="on")
    # The text of the error did not choose these rows, so their number reveals nothing about hidden text.
    stopped = len(rows) > search_hits.MOST_HITS
    if stopped:
        rows = _with_the_newest(session, wanted, found, rows)
    shown = [(job_id, state) for job_id, state, error in rows if error is None or is_shown(error)]
    return Hits(shown[: search_hits.MOST_HITS], Searched(stopped_at_hits=stopped))


def _find_by_errors(session: Session, wanted: JobFilter, found: Range, is_shown: IsShown) -> Hits:
    """The hits among the newest errors. Only errors that fit as they are shown count towards the limit.

    Otherwise, whether the search stopped at its limit would reveal hidden text.
    """
    has_older = session.scalars(search_hits.error_beyond(found)).first() is not None
    rows = session.execute(search_hits.newest_errors(wanted, found))
    fitting = ((job_id, state) for job_id, state, error in rows if is_shown(error or ""))
    shown = list(islice(fitting, search_hits.MOST_HITS + 1))
    stopped = len(shown) > search_hits.MOST_HITS
    return Hits(shown[: search_hits.MOST_HITS], Searched(stopped, has_older))


def _with_the_newest(
    session: Session, wanted: JobFilter, found: Range, rows: Sequence[Any]
) -> Sequence[Any]:
    """The hits, and those among the newest jobs: the index usually finds the oldest hits first."""
    beyond = session.scalars(search_hits.job_beyond(found)).first()
    near = session.execute(search_hits.newest_hits(wanted, found.narrowed(None, beyond)))
    merged = {row[0]: row for row in (*rows, *near)}
    return [merged[job_id] for job_id in sorted(merged, reverse=True)]


def _allow(session: Session, **scans: str) -> None:
    settings = (func.set_config(f"enable_{scan}", value, True) for scan, value in scans.items())
    session.execute(select(*settings))


def _count(found: Hits) -> dict[str, Count]:
    kind = "exact" if found.searched.is_all else "at_least"
    numbers = Counter(state for _, state in found.jobs)
    return {state: Count(numbers[state], kind) for state in STATES}


def _page(
    session: Session, ids: Sequence[int], limit: int, before: int | None, after: int | None
) -> JobPage:
    newer = [] if after is None else [job_id for job_id in ids if job_id > after]
    if len(newer) > limit:
        return JobPage(queries.list_rows(session, newer[-limit:]), True, True)
    # Fewer newer jobs than a page holds: show the full first page.
    older = ids if before is None else [job_id for job_id in ids if job_id < before]
    rows = queries.list_rows(session, older[:limit])
    return JobPage(rows, before is not None, len(older) > limit)
