"""The numbers beside the navigation's entries: what needs somebody, asked of the database every few seconds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

from ..overview.badges import Badge, find_badges
from ._host import host
from ._reads import reading

_log = logging.getLogger("flask_opsjobs")

_KEPT = timedelta(seconds=5)
_MOST_SECONDS = 0.5
# By engine: one process may serve several apps.
_kept: WeakKeyDictionary[Engine, tuple[datetime, Mapping[str, Badge]]] = WeakKeyDictionary()


def read() -> Mapping[str, Badge]:
    """The badges by endpoint, at most five seconds old; none when they cannot be had: a page never fails for them."""
    now = datetime.now(UTC)
    at, found = _kept.get(host().engine, (now - _KEPT, {}))
    if now - at < _KEPT:
        return found
    try:
        with reading(_MOST_SECONDS) as read:
            found = find_badges(read.session, read.now, host().settings.late_seconds)
    except Exception:
        _log.warning("the badges of the navigation could not be read", exc_info=True)
        found = {}
    _kept[host().engine] = now, found
    return found
