"""Finds the jobs of a filter that wait, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from sqlalchemy.orm import Session

from ...core.round_trips import StartedRead, start_reading
from .. import queries
from ..lifecycle import WAITING
from .conditions import Now, search_at
from .filter import LIMITS, Condition, JobFilter
from .further_queries import IsShown, Jobs, Search, find_in_states
from .hit_queries import Hits, SharedReads, find_hits, start_shared

MOST_WAITING = 10_000
_WAITS = tuple(Condition("state", state) for state in WAITING)


@dataclass(frozen=True)
class WaitingHits:
    """The ids of jobs that wait, the newest first. `is_cut` says that more may match."""

    ids: Sequence[int] = ()
    is_cut: bool = False


def may_wait(wanted: JobFilter) -> bool:
    """Whether the filter can have jobs that wait."""
    return wanted.state is None or wanted.state in WAITING


def find_waiting(
    session: Session,
    wanted: JobFilter,
    now: datetime | StartedRead[datetime],
    is_shown: IsShown,
) -> WaitingHits:
    """The jobs of a filter that wait, at most `MOST_WAITING`.

    The newest jobs of each state that waits are examined. When there are older ones, or an index has the jobs
    that a search names, it also looks as far as the list of jobs does. Does not wait for `now`.
    """
    if not may_wait(wanted):
        return WaitingHits()
    wanted = wanted.but(sort=None, limit=LIMITS[0])
    return search_at(wanted, now, partial(_find_waiting, session, is_shown))


def _find_waiting(session: Session, is_shown: IsShown, wanted: JobFilter, now: Now) -> WaitingHits:
    jobs: Jobs = []
    is_cut, can_go_on = True, wanted.is_search
    shared = start_shared(session, wanted)
    if wanted.is_of_group:
        # Their jobs of each state are listed. When there are more, an index may know those with a tag.
        examining = replace(shared, is_examined=True)
        jobs, is_cut = _search(session, wanted, now, is_shown, examining)
        can_go_on = bool(shared.rare)
    elif not (wanted.names_jobs or wanted.is_by_attempts):
        states = WAITING if wanted.state is None else (wanted.state,)
        found = queries.range_of(session, wanted, now)
        search = Search(session, wanted, now, found, is_shown)
        jobs, is_cut = find_in_states(search, states, MOST_WAITING)
    if is_cut and can_go_on:
        more, is_cut = _search(session, wanted, now, is_shown, shared)
        jobs = [*jobs, *more]
    ids = sorted({job_id for job_id, state in jobs if state in WAITING}, reverse=True)
    return WaitingHits(ids[:MOST_WAITING], is_cut or len(ids) > MOST_WAITING)


def _search(
    session: Session, wanted: JobFilter, now: Now, is_shown: IsShown, shared: SharedReads
) -> tuple[Jobs, bool]:
    def find(some: JobFilter) -> StartedRead[Hits]:
        return start_reading(session, find_hits, some, now, is_shown, shared=shared)

    # Of workflows and batches, the jobs of each state are listed anyway.
    if wanted.state or not wanted.is_of_group:
        narrow = wanted if wanted.state else wanted.but(further=(*wanted.further, _WAITS))
        hits = find(narrow).value
        if wanted.state or not hits.searched.may_find_more_of_a_state:
            return list(hits.jobs), not hits.searched.is_all
    found = [each.value for each in [find(wanted.but(state=state)) for state in WAITING]]
    jobs = [job for hits in found for job in hits.jobs]
    return jobs, not all(hits.searched.is_all for hits in found)
