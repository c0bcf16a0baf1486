"""Reads what every page shows beside its subject: sources that do not answer, and badges. Caches it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

from ...core.redis_facts import SilentRedis
from ...engine.redis.broker import broker_of
from ...engine.redis.connections import find_silent
from ...lifeline.awake import list_loops
from ...overview.badges import Badge, find_badges
from ...overview.headline import Wrong, find_silent_sources
from ...overview.queries import count_due
from .host import host
from .problems import Problem
from .reading import reading

_log = logging.getLogger("flask_opsjobs")

_KEPT = timedelta(seconds=5)
# While a source does not answer, a shorter time, so that pages soon show when it is back.
_KEPT_WHILE_AWAY = timedelta(seconds=1)
_MOST_SECONDS = 0.5


@dataclass(frozen=True)
class Sources:
    """The badges by endpoint, and the sources that do not answer, in words."""

    badges: Mapping[str, Badge] = field(default_factory=dict)
    wrong: Sequence[Wrong] = ()


# One cache per engine, because one process may serve several apps.
_kept: WeakKeyDictionary[Engine, tuple[datetime, Sources]] = WeakKeyDictionary()


def read_sources() -> Sources:
    """The sources and badges, at most five seconds old. Never raises: no page fails because of them."""
    now = datetime.now(UTC)
    at, found = _kept.get(host().engine, (now - _KEPT, Sources()))
    if now - at < (_KEPT_WHILE_AWAY if found.wrong else _KEPT):
        return found
    found = _ask()
    _kept[host().engine] = now, found
    return found


def forget() -> None:
    """Drop the cache, because this process has just changed what the badges count."""
    _kept.pop(host().engine, None)


def _ask() -> Sources:
    silent = find_silent_redis()
    try:
        with reading(_MOST_SECONDS) as read:
            badges = find_badges(read.session, read.now, host().settings.late_seconds)
            loops = list_loops(read.session, read.now)
            is_wrong = silent or not all(loop.is_awake for loop in loops)
            due = count_due(read.session) if is_wrong else {}
    except Problem as problem:
        # The page itself reads from Postgres too, and says why that failed.
        _log.warning("what surrounds a page could not be read: %s", problem.says)
        return Sources(wrong=find_silent_sources(silent, None, None))
    except Exception:
        _log.warning("what surrounds a page could not be read", exc_info=True)
        return Sources(wrong=find_silent_sources(silent, None, None))
    return Sources(badges, find_silent_sources(silent, loops, due))


def find_silent_redis() -> Sequence[SilentRedis]:
    """The Redis servers of this app's queues that do not answer."""
    declared = {task.declared.queue for task in host().tasks.values()}
    return find_silent(broker_of(host()).connections, {"default", *declared})
