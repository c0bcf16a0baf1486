"""Answers a poll with one statement while nothing that its page shows has changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

from flask import Response, request

from ...core.db import connect_soon
from ...overview.changes import Changes, find_changes
from . import access, files
from .host import asking, host
from .shell import find_unreachable_redis, forget_sources, read_preferences

# A fragment holds for so many seconds. What changes by time alone, what only Redis knows, and what Postgres
# has not counted yet is shown at the first refresh after that.
MOST_SECONDS = 35
# A session that has just told Postgres what it changed keeps what follows for 10 s. So for a while after a
# change each refresh makes the fragment, and shows what follows.
_FOLLOWED_SECONDS = 11
_OF_POLL = re.compile(r"([0-9a-f]+)\.([0-9a-f]+)\.([0-9]{1,19})\.([0-9]{1,12})\.([0-9]{1,12})")


@dataclass(frozen=True)
class _Tag:
    """The ETag of a fragment: the hash of its text, what was found before it was made, and when.

    `validator` is a hash of what decides the text besides the changed rows. So many of them were first found
    at `since`. Times are in seconds of Postgres' clock.
    """

    text: str
    validator: str = ""
    changed_rows: int = -1
    since: int = 0
    made: int = 0

    def __str__(self) -> str:
        return ".".join(map(str, astuple(self)))

    @classmethod
    def read(cls, given: str) -> _Tag:
        """What a browser sent back. Of a document's tag, which is no answer to a poll, the text only."""
        found = _OF_POLL.fullmatch(given)
        if found is None:
            return cls(given)
        return cls(found[1], found[2], *map(int, found.groups()[2:]))

    def holds(self, now: int) -> bool:
        """Whether the fragment is young enough, and nothing was found for a while before `now`."""
        return 0 <= now - self.made < MOST_SECONDS and now - self.since >= _FOLLOWED_SECONDS


def answer_poll(view: Callable[..., Response], **arguments: Any) -> Response:
    """The fragment of `view`; or 304, without making it, while the one that the browser has still holds.

    What has changed is found first. So the next poll finds what changes while the fragment is made.
    """
    given = next(iter(request.if_none_match.as_set(include_weak=True)), None)
    if given is None:
        return view(**arguments)
    had, found = _Tag.read(given), _find_changes()
    validator, now = _make_validator(found), int(found.now.timestamp())
    is_counted = had.changed_rows == found.changed_rows
    is_same = is_counted and had.validator == validator
    if is_same and had.holds(now) and not request.cache_control.no_cache:
        response = Response(status=304)
        response.set_etag(given)
        return response
    if not is_same:
        forget_sources()  # they may be older than the change
    response = view(**arguments)
    text = str(response.get_etag()[0])
    if text == had.text:
        response.status_code = 304
    since = had.since if is_counted else now
    response.set_etag(str(_Tag(text, validator, found.changed_rows, since, now)))
    return response


def _find_changes() -> Changes:
    with (
        asking(),
        connect_soon(host().pages).execution_options(isolation_level="AUTOCOMMIT") as connection,
    ):
        return find_changes(connection, host().settings.late_seconds)


def _make_validator(found: Changes) -> str:
    """Of the address, of who looks and what they may do, of our files and settings, and of the state."""
    about = dict.fromkeys((None, access.subject()))
    display = type(host().display)
    decides = (
        (request.script_root, request.full_path, read_preferences()),
        (access.actor(), [access.may(each, one) for one in about for each in access.PERMISSIONS]),
        (files.versions(), host().settings, display.__module__, display.__qualname__),
        (found.state, [one.place for one in find_unreachable_redis()]),
    )
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:16]
