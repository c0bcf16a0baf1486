"""Declares the options of a job: a task sets them, and each call may change them.

Durations are seconds or a `timedelta`, at most a hundred years.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import cached_property
from typing import Any, TypedDict

from sqlalchemy.orm import Session, scoped_session

from ...core.words import show_value
from ...errors import DeclarationError
from ...escalations import lifecycle as escalations
from ...limits.limit import Limit, lane_of
from . import json_storage

LONGEST_DURATION = timedelta(days=36_500)
_MOST_SECONDS = LONGEST_DURATION.total_seconds()


def seconds_of(duration: object) -> float | None:
    """The duration in seconds; None when the value is not a duration from 0 to a hundred years."""
    if isinstance(duration, timedelta):
        duration = duration.total_seconds()
    if isinstance(duration, bool) or not isinstance(duration, int | float):
        return None
    # The comparison refuses NaN, and integers that are too large for a float.
    return float(duration) if 0 <= duration <= _MOST_SECONDS else None


def interval_of(span: timedelta | None) -> str | None:
    """The span as an interval of Postgres in seconds alone; None without one.

    psycopg writes days. Postgres adds them by what clocks show in the zone of the session, so one of them has
    23 or 25 hours when clocks change.

    >>> interval_of(timedelta(days=2))
    '172800.000000 s'
    """
    return None if span is None else f"{span.total_seconds():f} s"


def is_span(value: object) -> bool:
    """Whether the value is a `timedelta` above 0 and at most a hundred years long."""
    return isinstance(value, timedelta) and timedelta(0) < value <= LONGEST_DURATION


@dataclass(frozen=True)
class Unique:
    """Allows one job per task and chosen arguments, for a time. Raises `DeclarationError` with every fault.

    Give exactly one lifetime: `within=timedelta(…)` counts from the enqueue; `until="ended"` lasts until the
    job has ended, retries included; `until="forever"` lasts even after the job was deleted. `by` names the
    arguments that are compared: all by default, none for `[]`. `key`, given instead of `by`, is a function
    that gets the arguments as a dict, defaults included, and returns the value to compare.

    >>> @opsjobs.task(unique=Unique(by=["account_id"], within=timedelta(hours=1)))
    ... def sync_account(account_id: int, is_full: bool = False) -> None:
    ...     print("syncing")
    >>> first = sync_account.enqueue(42)
    >>> again = sync_account.enqueue(42, is_full=True)
    >>> again.id == first.id, again.conflict
    (True, True)
    """

    by: Sequence[str] | None = None
    within: timedelta | None = None
    until: str | None = None
    key: Callable[[dict[str, Any]], Any] | None = None

    def __post_init__(self) -> None:
        faults = []
        if (self.within is None) == (self.until is None):
            faults.append('give exactly one of within=timedelta(…), until="ended", until="forever"')
        if self.until not in (None, "ended", "forever"):
            faults.append(f'until must be "ended" or "forever", got {show_value(self.until)}')
        if self.within is not None and not is_span(self.within):
            faults.append(
                "within must be a timedelta above 0, at most 100 years, "
                f"got {show_value(self.within)}"
            )
        if self.by is not None and (isinstance(self.by, str) or not isinstance(self.by, Sequence)):
            faults.append(f"by must be a list of argument names, got {show_value(self.by)}")
        if self.by is not None and self.key is not None:
            faults.append("give by or key, not both: key already chooses what is compared")
        if self.key is not None and not callable(self.key):
            faults.append("key must be a function of the arguments")
        if faults:
            raise DeclarationError("Unique: " + "; ".join(faults))

    @property
    def lifetime(self) -> str:
        """The word that a unique lock stores: `within`, `ended` or `forever`."""
        return self.until or "within"

    def require_names(self, task: str, names: Iterable[str], redact: Iterable[str]) -> None:
        """Raise `DeclarationError` unless `by` names only stored arguments."""
        for name in self.by or ():
            if name in redact:
                raise DeclarationError(
                    f"task {task}: unique by {name!r}, which is redacted: a key derived from a "
                    "secret could reveal it; choose other arguments"
                )
            if name not in names:
                raise DeclarationError(
                    f"task {task}: unique by {name!r}, which is not a parameter of it"
                )


MOST_TAGS = 50
# RQ takes any text as a queue's name; these characters are safe in URLs, in keys of Redis and in a shell.
_NAME = re.compile(r"[A-Za-z0-9_.:\-]{1,200}")
LAST_YEAR = 9000


# The tags of a job, or a function that makes them of its arguments when it is enqueued.
Tags = Sequence[str] | Callable[[dict[str, Any]], Sequence[str]]


class OptionChanges(TypedDict, total=False):
    """The options that `Task.options` takes.

    A call may set `delay`, `scheduled_at` and `session`; a task declaration may not.
    """

    queue: str
    priority: int
    max_attempts: int
    timeout: int | None
    deadline: timedelta | None
    tags: Tags
    meta: Mapping[str, Any] | None
    unique: Unique | None
    delay: float | timedelta | None
    scheduled_at: datetime | None
    session: Session | scoped_session[Any] | None


@dataclass(frozen=True)
class Options:
    """The options of one call. Durations are seconds or a `timedelta`; `deadline` counts from the due time.

    `OptionChanges` has no `limit`: a call cannot change or remove the limit of its task.
    """

    queue: str = "default"
    priority: int = 5
    max_attempts: int = 5
    timeout: int | None = None
    deadline: timedelta | None = None
    tags: Tags = ()
    meta: Mapping[str, Any] | None = None
    unique: Unique | None = None
    delay: float | timedelta | None = None
    scheduled_at: datetime | None = None
    session: Session | scoped_session[Any] | None = field(default=None, repr=False)
    limit: Limit | None = None
    # The batch that the job becomes a member of. `Batch` sets it, never a declaration or a call.
    batch_id: int | None = None

    def change(self, task: str, changes: OptionChanges) -> Options:
        """A copy with these changes.

        Raises `DeclarationError` with every fault, `TypeError` for an unknown name.
        """
        require_options(task, changes, OptionChanges.__annotations__)
        changed = replace(self, **changes)
        changed.require_legal(task)
        return changed

    def require_legal(self, task: str) -> None:
        """Raise `DeclarationError`, with every fault, unless every value is allowed."""
        faults = [*faults_of_placement(self), *_faults_of_times(self), *_faults_of_notes(self)]
        if self.unique is not None and not isinstance(self.unique, Unique):
            faults.append(f"unique must be a Unique(…), got {type(self.unique).__name__}")
        if self.limit is not None and not isinstance(self.limit, Limit):
            faults.append(f"limit must be a Limit(…), got {type(self.limit).__name__}")
        if faults:
            raise DeclarationError(f"task {task}: " + "; ".join(faults))

    @property
    def is_due_now(self) -> bool:
        """Whether the job has neither a delay nor a scheduled time."""
        return self.scheduled_at is None and not self.delay_seconds

    @property
    def delay_seconds(self) -> float:
        """The delay in seconds, 0 without one."""
        return seconds_of(self.delay) or 0.0

    @cached_property
    def enqueue_parameters(self) -> dict[str, Any]:
        """The parameters that the enqueue statements take, except the arguments.

        Of a limited job also except lane, limiter, partition and weight.
        """
        meta = b"{}" if not self.meta else json_storage.dump(dict(self.meta))
        return {
            "queue": self.queue,
            "priority": self.priority,
            "meta": meta.decode(),
            # Those of a function depend on the arguments: `tags_of` finds them.
            "tags": [] if callable(self.tags) else list(self.tags),
            "max_attempts": self.max_attempts,
            "timeout_seconds": self.timeout,
            "deadline": interval_of(self.deadline),
            "delay": interval_of(timedelta(seconds=self.delay_seconds)),
            "scheduled_at": self.scheduled_at,
            # A job without a limit.
            "lane": lane_of(self.queue, None),
            "limiter": None,
            "partition": None,
            "weight": None,
            "batch_id": self.batch_id,
        }


def require_options(task: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise `TypeError` at the first name that is no option, with the option that it is like, or with all."""
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise TypeError(f"task {task}: there is no option {name}; {hint}")


def fault_of_name(what: str, name: object) -> str | None:
    """The error message for a bad name of a queue or task; None for a good name."""
    if name in (".", ".."):
        return f"{what} {name!r} is not a name: browsers and proxies change URLs with it"
    if isinstance(name, str) and _NAME.fullmatch(name):
        return None
    if not isinstance(name, str):
        return f"{what} must be a text, got {type(name).__name__}"
    return f"{what} {show_value(name)} is not a name: use 1 to 200 letters, digits and _ - . :"


def faults_of_placement(options: Options) -> list[str]:
    """What is wrong with the queue, the priority, and how often and how long a job may run."""
    faults = [fault] if (fault := fault_of_name("queue", options.queue)) else []
    if options.queue == escalations.QUEUE:
        faults.append(f"queue {options.queue!r} is ours, for escalations: choose another name")
    if not _is_whole(options.priority, 0, 9):
        faults.append(
            f"priority must be a whole number from 0 (first) to 9, got {show_value(options.priority)}"
        )
    if not _is_whole(options.max_attempts, 1, 1_000_000):
        faults.append(
            "max_attempts must be a whole number from 1 to 1,000,000, "
            f"got {show_value(options.max_attempts)}"
        )
    if options.timeout is not None and not _is_whole(options.timeout, 1, 2**31 - 1):
        faults.append(
            "timeout must be whole seconds from 1 to 2,147,483,647, or None, "
            f"got {show_value(options.timeout)}"
        )
    return faults


def _faults_of_times(options: Options) -> list[str]:
    faults = []
    deadline, delay, at = options.deadline, options.delay, options.scheduled_at
    if deadline is not None and not is_span(deadline):
        faults.append(
            f"deadline must be a timedelta above 0, at most 100 years, got {show_value(deadline)}"
        )
    if delay is not None and seconds_of(delay) is None:
        faults.append(
            f"delay must be seconds or a timedelta, from 0 to 100 years, got {show_value(delay)}"
        )
    if at is not None and not (isinstance(at, datetime) and at.utcoffset() is not None):
        faults.append(f"scheduled_at must be a datetime with a time zone, got {show_value(at)}")
    elif at is not None and at.year > LAST_YEAR:
        faults.append(f"scheduled_at is in the year {at.year}: {LAST_YEAR} is the last")
    if delay is not None and at is not None:
        faults.append("delay and scheduled_at exclude each other: give one")
    return faults


def _faults_of_notes(options: Options) -> list[str]:
    faults = []
    if callable(options.tags):
        pass  # What it returns is checked for each job.
    elif isinstance(options.tags, str) or not isinstance(options.tags, Sequence):
        faults.append("tags must be a list of texts, such as tags=['import'], or a function")
    elif wrong := [tag for tag in options.tags if not _is_tag(tag)]:
        faults.append(f"a tag must be a text of 1 to 200 characters, got {show_value(wrong[0])}")
    elif len(options.tags) > MOST_TAGS:
        faults.append(
            f"a job has at most {MOST_TAGS} tags, got {len(options.tags)}: use meta for more"
        )
    if options.meta is not None:
        try:
            if not isinstance(options.meta, Mapping):
                raise json_storage.NotStorable("not_json", "must be a dict")
            json_storage.check_readable(json_storage.dump(dict(options.meta)))
        except json_storage.NotStorable as why:
            faults.append(f"meta {why}")
    return faults


def fault_of_made_tags(made: object) -> str | None:
    """Why these are not the tags of a job; None when they are. Names no value: it is made of arguments."""
    if not isinstance(made, list | tuple):
        return f"its function must return a list of texts, and returned {type(made).__name__}"
    if len(made) > MOST_TAGS:
        return f"a job has at most {MOST_TAGS} tags, and its function returned {len(made):,}"
    for tag in made:
        if not _is_tag(tag):
            kind = f"{len(tag):,} characters" if isinstance(tag, str) else type(tag).__name__
            return (
                f"a tag is a text of 1 to 200 characters without NUL; its function returned {kind}"
            )
    return None


def _is_tag(tag: object) -> bool:
    return isinstance(tag, str) and 1 <= len(tag) <= 200 and json_storage.complain(tag) is None


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
