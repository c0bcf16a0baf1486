"""Holds what surrounds every page: the navigation, preferences, badges, and sources that do not answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from weakref import WeakKeyDictionary

from flask import g, request
from sqlalchemy import Engine
from werkzeug import Response

from ...core.reading import Reading
from ...core.redis_facts import UnreachableRedis
from ...core.round_trips import start_guest, start_reading
from ...core.words import counted
from ...engine.redis.broker import broker_of
from ...engine.redis.connections import find_unreachable
from ...lifeline.loop_runs import list_loops
from ...operations.queries import OpenOperations, find_open_operations
from ...overview.badges import Badge, find_badges
from ...overview.headline import Wrong, find_wrong_sources
from ...overview.queries import count_due
from ...workers.queries import list_workers, served_by
from . import problems
from .host import host, reading
from .problems import Problem


@dataclass(frozen=True)
class NavigationItem:
    """An entry of the navigation, for people with its permission. The keys `g` and `key` open its page."""

    endpoint: str
    label: str
    permission: str
    key: str

    @property
    def icon(self) -> str:
        """The symbol in the sprite."""
        return f"i-{self.endpoint}"


NAVIGATION = (
    NavigationItem("overview", "Overview", "overview.view", "o"),
    NavigationItem("jobs", "Jobs", "jobs.view", "j"),
    NavigationItem("tasks", "Tasks", "tasks.view", "k"),
    NavigationItem("queues", "Queues", "queues.view", "q"),
    NavigationItem("workers", "Workers", "workers.view", "w"),
    NavigationItem("workflows", "Workflows", "workflows.view", "f"),
    NavigationItem("batches", "Batches", "batches.view", "b"),
    NavigationItem("cron", "Cron", "cron.view", "c"),
    NavigationItem("limiters", "Limiters", "limiters.view", "l"),
    NavigationItem("lifeline", "Lifeline", "lifeline.view", "i"),
    NavigationItem("forensics", "Forensics", "forensics.view", "e"),
    NavigationItem("audit", "Audit", "audit.view", "a"),
    # Where rq-dashboard is installed.
    NavigationItem("rq", "RQ", "bridge.view", "r"),
)


# The first of each is the default.
PREFERENCES: Mapping[str, tuple[str, ...]] = {
    "refresh": ("5", "off", "2", "15", "30"),
    "zone": ("UTC", "local"),
    "theme": ("system", "light", "dark"),
}
_YEAR_SECONDS = 365 * 86400


@dataclass(frozen=True)
class Preferences:
    """Each value is one of `PREFERENCES`; `refresh` is in seconds, or `off`."""

    refresh: str
    zone: str
    theme: str


def read_preferences() -> Preferences:
    """The preferences of the current request; the default for a missing or unknown value."""
    found = {name: request.cookies.get(f"opsjobs_{name}", "") for name in PREFERENCES}
    return Preferences(
        **{
            name: found[name] if found[name] in PREFERENCES[name] else PREFERENCES[name][0]
            for name in PREFERENCES
        }
    )


def keep_preferences(response: Response, path: str) -> None:
    """Set a cookie for each preference in the current form.

    Raises the 422 `Problem` for a value that is not a choice.
    """
    for name, choices in PREFERENCES.items():
        value = request.form.get(name)
        if value is None:
            continue
        if value not in choices:
            raise problems.unreadable(f"{name}: {value[:40]!r} is not one of {', '.join(choices)}")
        response.set_cookie(
            f"opsjobs_{name}",
            value,
            max_age=_YEAR_SECONDS,
            path=path,
            httponly=True,
            samesite="Lax",
            secure=request.is_secure,
        )


_log = logging.getLogger("flask_opsjobs")

# So short that badges agree with the numbers of the page beside them, which are read anew.
_KEPT = timedelta(seconds=1)
_MOST_SECONDS = 0.5


@dataclass(frozen=True)
class Sources:
    """The badges by endpoint, the sources that do not answer, in words, and the operations in progress."""

    badges: Mapping[str, Badge] = field(default_factory=dict)
    wrong: Sequence[Wrong] = ()
    operations: OpenOperations | None = None


@dataclass(frozen=True)
class Worst:
    """The worst of what is wrong, for the tab: the suffix of its icon, and a few words for its title."""

    icon: str
    says: str


def find_worst(sources: Sources, entries: Sequence[NavigationItem]) -> Worst | None:
    """The worst, for a reader who may open these entries; None when nothing is known to be wrong.

    Sources that do not answer come first, since nothing else is known then.
    """
    if sources.wrong:
        return Worst("away", f"● {counted(len(sources.wrong), 'source')} away")
    badge = sources.badges.get("lifeline")
    if badge is None or not any(entry.endpoint == "lifeline" for entry in entries):
        return None
    return Worst(badge.status, f"● {badge.short}")


# One cache per engine, because one process may serve several apps.
_cache: WeakKeyDictionary[Engine, tuple[datetime, Sources]] = WeakKeyDictionary()


def read_sources() -> Sources:
    """The sources and badges, at most one second old when the request asks first for them.

    Never raises: no page fails because of them.
    """
    found = _find_kept()
    if found is not None:
        return found
    unreachable = find_unreachable_redis()
    with _keeping(unreachable), reading(_MOST_SECONDS) as read:
        _keep(_find_sources(read, unreachable))
    # Not from the cache: another request may have dropped it since.
    sources: Sources = g.opsjobs_sources
    return sources


def read_sources_beside() -> Callable[[Reading], AbstractContextManager[None]] | None:
    """What reads them in the round trips of a page that is read in its block. None when they are kept."""
    return None if _find_kept() else partial(_read_beside, find_unreachable_redis())


def forget_sources() -> None:
    """Drop the cache, because this process has just changed what the badges count."""
    _cache.pop(host().engine, None)


@contextmanager
def _read_beside(unreachable: Sequence[UnreachableRedis], read: Reading) -> Iterator[None]:
    started = start_guest(read, _MOST_SECONDS, _find_sources, unreachable)
    yield
    with _keeping(unreachable):
        _keep(started.value)


@contextmanager
def _keeping(unreachable: Sequence[UnreachableRedis]) -> Iterator[None]:
    """A block that keeps the sources. When they cannot be read, this is kept."""
    try:
        yield
    except Problem as problem:
        # The page itself reads from Postgres too, and says why that failed. Help and some problems do not.
        _log.warning("what surrounds a page could not be read: %s", problem.says)
        wrong = find_wrong_sources(unreachable, None, None)
        if since := host().postgres.unanswered_since:
            fact, source = f"{problem.title}.", problem.source
            wrong = [Wrong("critical", fact, problem.todo, since, source=source), *wrong]
        _keep(Sources(wrong=wrong))
    except Exception:
        _log.warning("what surrounds a page could not be read", exc_info=True)
        _keep(Sources(wrong=find_wrong_sources(unreachable, None, None)))


def _find_kept() -> Sources | None:
    at, found = _cache.get(host().engine, (None, None))
    # A page that takes longer asks once.
    asked_at: datetime = g.setdefault("opsjobs_sources_asked_at", datetime.now(UTC))
    return found if at is not None and asked_at - at < _KEPT else None


def _keep(found: Sources) -> None:
    g.opsjobs_sources = found
    _cache[host().engine] = datetime.now(UTC), found


def _find_sources(read: Reading, unreachable: Sequence[UnreachableRedis]) -> Sources:
    settings = host().settings
    operations = start_reading(read.session, find_open_operations)
    badges = start_reading(read.session, find_badges, read.now, settings.late_seconds)
    loops = list_loops(read.session, read.now, settings.loops_off)
    is_wrong = unreachable or not all(loop.is_running for loop in loops)
    due = start_reading(read.session, count_due) if is_wrong else None
    workers = list_workers(read.session, read.now, settings.late_seconds) if unreachable else ()
    wrong = find_wrong_sources(unreachable, loops, due.value if due else {}, served_by(workers))
    return Sources(badges.value, wrong, operations.value)


def find_unreachable_redis() -> Sequence[UnreachableRedis]:
    """The Redis servers of this app's queues that do not answer."""
    declared = {task.declared.queue for task in host().tasks.values()}
    return find_unreachable(broker_of(host()).connections, {"default", *declared})
