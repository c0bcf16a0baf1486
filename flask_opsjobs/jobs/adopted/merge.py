"""Decides what becomes of the row of an adopted job after a look: its state, its times and its runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ..lifecycle import FINAL, WAITING
from .seen import SeenJob, SeenRun

# In place of a function's name that cannot be read.
NO_FUNCTION = "(unknown)"
_ENDED_BY = {"finished": "returned", "failed": "exhausted", "canceled": "canceled"}
# States in which the last start of a job is told.
_HAS_RUN = ("started", "retryable", *FINAL)


class Time(NamedTuple):
    """A time of a job, who reported it, and for an interval the last look before it."""

    at: datetime | None = None
    source: str | None = None
    after: datetime | None = None


@dataclass(frozen=True)
class Moment:
    """When a look began, when what it found was read, and the last look before at which all was read."""

    looked_at: datetime
    now: datetime
    before: datetime | None = None

    def interval(self, *known: datetime | None) -> Time:
        """The time of a change that nobody saw: after the last look and after what is known."""
        past = [time for time in (self.before, *known) if time is not None and time <= self.now]
        # Without a look before, nothing says that it was not so for long.
        return Time(self.now, "observer", max(past) if self.before is not None else None)


@dataclass(frozen=True)
class AdoptedRun:
    """An attempt of an adopted job as it is stored. `is_ours`: a worker of ours reported it."""

    number: int
    key: str | None
    started_at: datetime
    ended_at: datetime | None
    is_ours: bool

    @property
    def is_open(self) -> bool:
        """Whether its end is not known yet."""
        return self.ended_at is None


@dataclass(frozen=True)
class AdoptedJob:
    """An adopted job as it is stored, with its newest runs."""

    id: int
    state: str
    values: dict[str, Any]
    changed_at: datetime
    runs: Sequence[AdoptedRun] = ()

    def time(self, name: str) -> Time:
        """One of its times."""
        return Time(
            self.values[f"{name}_at"],
            self.values[f"{name}_source"],
            self.values[f"{name}_after"],
        )


@dataclass(frozen=True)
class Merged:
    """The columns of a job and its facts, and its runs to write as (number, run)."""

    values: dict[str, Any]
    runs: list[tuple[int, SeenRun]] = field(default_factory=list)


def merge(seen: SeenJob, stored: AdoptedJob | None, moment: Moment) -> Merged:
    """What the row shall be.

    A time that was reported before is kept unless this look knows it better: a worker of ours knows its own
    run best, then RQ's stamp counts, then an interval. An interval is never replaced by a later one.
    """
    is_ours = stored is not None and _is_run_of_ours(seen, stored)
    created = _find_created(seen, stored, moment)
    times = {
        "created": created,
        "dispatched": _find_dispatched(seen, stored, moment),
        "started": _find_started(seen, stored, moment, is_ours=is_ours),
        "ended": _find_ended(seen, stored, moment, is_ours=is_ours),
    }
    runs = _number_runs(seen, stored, times["started"].at, moment)
    numbers = [number for number, _ in runs] + [
        run.number for run in (stored.runs if stored else ())
    ]
    attempt = max(numbers, default=0)
    values: dict[str, Any] = {
        "state": seen.state,
        "queue": seen.queue,
        "task": seen.function or (stored.values["task"] if stored else NO_FUNCTION),
        "rq_status": seen.word,
        "attempt": attempt,
        "max_attempts": max(1, attempt + (seen.retries_left or 0) + (seen.state in WAITING)),
        "timeout_seconds": seen.timeout_seconds,
        "due_at": seen.scheduled_for or seen.enqueued_at or created.at,
        "ended_by": _ENDED_BY.get(seen.state),
        "error": seen.runs[-1].error
        if seen.runs and seen.state in ("failed", "retryable")
        else None,
        "structure": seen.structure,
        "depends_on": list(seen.depends_on),
        "allows_failure": seen.allows_failure,
        "group_id": seen.group_id,
        "cron": seen.cron or (stored.values["cron"] if stored else None),
        "repeats_left": seen.repeats_left,
        "retries_left": seen.retries_left,
        "rate_limit_key": seen.rate_limit_key,
        "ttl_seconds": seen.ttl_seconds,
    }
    for name, time in times.items():
        values |= {
            f"{name}_at": time.at,
            f"{name}_source": time.source,
            f"{name}_after": time.after,
        }
    if stored is not None and is_ours and stored.state == seen.state:
        values |= {name: stored.values[name] for name in ("ended_by", "error")}
    return Merged(values, runs)


def came_back(seen: SeenJob, stored: AdoptedJob) -> bool:
    """Whether RQ has an ended job as it was before it ran: its Redis is older than it was.

    A job that is requeued is enqueued anew, and one that is repeated has started before.
    """
    ended_at = stored.time("ended").at
    if stored.state not in FINAL or stored.time("started").at is None or ended_at is None:
        return False
    if seen.state not in ("queued", "deferred", "scheduled") or seen.started_at is not None:
        return False
    return seen.enqueued_at is None or seen.enqueued_at < ended_at


def _find_created(seen: SeenJob, stored: AdoptedJob | None, moment: Moment) -> Time:
    if seen.created_at is not None:
        return Time(seen.created_at, "rq")
    return stored.time("created") if stored else moment.interval()


def _find_dispatched(seen: SeenJob, stored: AdoptedJob | None, moment: Moment) -> Time:
    if seen.enqueued_at is not None:
        return Time(seen.enqueued_at, "rq")
    was_queued = stored is not None and stored.time("dispatched").at is not None
    if stored is not None and was_queued and (seen.state != "queued" or stored.state == "queued"):
        return stored.time("dispatched")
    return moment.interval(seen.created_at) if seen.state == "queued" else Time()


def _find_started(
    seen: SeenJob, stored: AdoptedJob | None, moment: Moment, *, is_ours: bool
) -> Time:
    if seen.state not in _HAS_RUN:
        return Time()
    known = stored.time("started") if stored else Time()
    if is_ours and known.source == "worker":
        return known
    if seen.started_at is not None:
        return Time(seen.started_at, "rq")
    if known.at is not None and stored is not None and "started" in (stored.state, seen.state):
        return (
            known
            if stored.state == "started"
            else moment.interval(seen.created_at, seen.enqueued_at)
        )
    if known.at is not None:
        return known
    return moment.interval(seen.created_at, seen.enqueued_at) if seen.state == "started" else Time()


def _find_ended(seen: SeenJob, stored: AdoptedJob | None, moment: Moment, *, is_ours: bool) -> Time:
    if seen.state not in FINAL:
        return Time()
    known = stored.time("ended") if stored and stored.state == seen.state else Time()
    if is_ours and known.source == "worker":
        return known
    # RQ stamps the end of a run only: after a cancel the stamp may be that of an earlier run.
    stamp = None if seen.word == "canceled" else seen.ended_at
    if stamp is not None and (seen.started_at is None or stamp >= seen.started_at):
        return Time(stamp, "rq")
    if known.at is not None:
        return known
    return moment.interval(seen.created_at, seen.enqueued_at, seen.started_at)


def _is_run_of_ours(seen: SeenJob, stored: AdoptedJob) -> bool:
    """Whether a worker of ours reported the newest run, and RQ knows no newer one."""
    newest = max(stored.runs, key=lambda run: run.number, default=None)
    if newest is None or not newest.is_ours:
        return False
    key = seen.running or (seen.runs[-1].key if seen.runs else None)
    return key in (None, newest.key)


def _number_runs(
    seen: SeenJob, stored: AdoptedJob | None, started_at: datetime | None, moment: Moment
) -> list[tuple[int, SeenRun]]:
    """The runs that are new or have ended, with their numbers. RQ numbers none: they are counted."""
    known = {run.key: run for run in (stored.runs if stored else ())}
    last = max((run.number for run in known.values()), default=seen.runs_before)
    found: list[tuple[int, SeenRun]] = []
    runs = list(seen.runs)
    retried = seen.retried_run
    if retried is not None and not any(_is_same_end(run, retried) for run in known.values()):
        key = next((run.key for run in known.values() if run.is_open and not run.is_ours), None)
        runs.append(replace(retried, key=key or retried.key))
    if seen.running and all(run.key != seen.running for run in runs):
        runs.append(SeenRun(seen.running, None, seen.worker, started_at, None))
    for run in runs:
        if run.key in known:
            if known[run.key].is_open and run.ended_at is not None:
                found.append((known[run.key].number, run))
            continue
        last += 1
        # A run whose start nobody knows counts, and is not shown.
        if run.started_at is not None:
            found.append((last, run))
    keys = {run.key for run in runs}
    for old in known.values():
        if old.is_open and not old.is_ours and old.key not in keys:
            found.append((old.number, _lose(old, moment)))
    return found


def _lose(run: AdoptedRun, moment: Moment) -> SeenRun:
    """The run whose end nobody saw."""
    end = moment.interval(run.started_at)
    after = end.after or min(run.started_at, moment.now)
    return SeenRun(run.key or "", "lost", "", None, end.at, ended_after=after)


def _is_same_end(run: AdoptedRun, retried: SeenRun) -> bool:
    """Whether a run that is stored is the one that RQ tries again. A worker of ours reads its own clock."""
    if run.ended_at is None or retried.ended_at is None:
        return False
    return abs(run.ended_at - retried.ended_at) < timedelta(seconds=1)
