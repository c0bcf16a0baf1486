"""Filters the list of decisions: reads a filter from a query string and writes it back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..core.db import LARGEST_ID
from ..core.typed_times import read_moment_or_day, read_span
from ..errors import OpsJobsError
from .models import OUTCOMES

LIMITS = (25, 50, 100)
_LONGEST = 200
# Those whose value is a text of one column, then those that are read in their own way.
TEXTS = ("actor", "action", "outcome", "q", "request_id")
TIMES = ("since", "until")
SUBJECTS = ("operation", "incident")
CONDITIONS = (*TEXTS, *TIMES, *SUBJECTS)
_TARGET = re.compile(
    r"(?:job|task|workflow|batch|queue|cron|limiter|worker|lease|delivery|incident|failure|operation)/.+"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class BadAuditFilter(OpsJobsError):
    """An invalid filter. The message names the field and says what is allowed."""


@dataclass(frozen=True)
class AuditFilter:
    """The conditions that a decision must meet, and how many decisions a page shows.

    `q` is searched in the targets and the reason. Written as `job/42` or `cron/sync` it means exactly that
    target. `since` and `until` are a span before now, such as `2h`, or a time in UTC; `until` itself is not
    included. `operation` and `incident` are ids: of the operation that a decision is about or starts, and of
    the incident that it is about or answers.

    >>> AuditFilter.from_query({"actor": "anna", "since": "2h", "incident": "incident/7"})
    AuditFilter(actor='anna', action=None, outcome=None, q=None, request_id=None, since='2h', until=None, ...)
    """

    actor: str | None = None
    action: str | None = None
    outcome: str | None = None
    q: str | None = None
    request_id: str | None = None
    since: str | None = None
    until: str | None = None
    operation: int | None = None
    incident: int | None = None
    limit: int = LIMITS[0]

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> AuditFilter:
        """Read the filter from a query string. Empty values count as absent. Raises `BadAuditFilter`."""
        given = {name: value for name in CONDITIONS if (value := query.get(name, "").strip())}
        found: dict[str, Any] = {name: _READERS[name](name, value) for name, value in given.items()}
        if limit := query.get("limit"):
            found["limit"] = _limit(limit)
        wanted = cls(**found)
        if wanted.is_backward:
            raise BadAuditFilter("since: is not before until")
        return wanted

    def to_query(self) -> dict[str, str]:
        """The shortest parameters of a URL that `from_query` reads as this filter."""
        given = {name: getattr(self, name) for name in CONDITIONS}
        query = {name: str(value) for name, value in given.items() if value is not None}
        return query if self.limit == LIMITS[0] else query | {"limit": str(self.limit)}

    def but(self, **changes: Any) -> AuditFilter:
        """A copy of this filter with these changes. None removes a condition."""
        return replace(self, **changes)

    @property
    def target(self) -> str | None:
        """The target in `q`; None when `q` is not a target."""
        return self.q if self.q and _TARGET.fullmatch(self.q) else None

    @property
    def text(self) -> str | None:
        """The text in `q` to search for; None when `q` is a target."""
        return None if self.target else self.q

    @property
    def targets(self) -> list[str]:
        """All that a decision must name: the target in `q`, the operation, the incident."""
        given = ((name, getattr(self, name)) for name in SUBJECTS)
        subjects = [f"{name}/{id_}" for name, id_ in given if id_ is not None]
        return [self.target, *subjects] if self.target else subjects

    def times(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """When the first decision may be, and before when the last one must be; None without that bound."""
        since, until = (_find_time(text, now) for text in (self.since, self.until))
        return since, until

    @property
    def is_backward(self) -> bool:
        """Whether `since` is not before `until`: two spans, or two times. Others depend on the time now."""
        if self.since is None or self.until is None:
            return False
        spans = [read_span(text) for text in (self.since, self.until)]
        if spans.count(None) == 1:
            return False
        since, until = self.times(datetime.now(UTC))
        return since is not None and until is not None and since >= until

    @property
    def is_given(self) -> bool:
        """Whether it has any condition."""
        return any(getattr(self, name) is not None for name in CONDITIONS)

    @property
    def conditions(self) -> str:
        """A text that is equal for filters with the same conditions. Page cursors are bound to it."""
        return repr([(name, getattr(self, name)) for name in CONDITIONS])


def _text(name: str, value: str) -> str:
    if _CONTROL.search(value):
        raise BadAuditFilter(f"{name}: holds a control character")
    if len(value) > _LONGEST:
        raise BadAuditFilter(f"{name}: has at most {_LONGEST} characters")
    return value


def _outcome(name: str, value: str) -> str:
    if value not in OUTCOMES:
        raise BadAuditFilter(
            f"{name}: there is no outcome {value[:40]!r}; known are {', '.join(OUTCOMES)}"
        )
    return value


def _time(name: str, value: str) -> str:
    """The span as typed, or the time in UTC, with a T between day and hour."""
    if read_span(value) is not None:
        return value
    found = read_moment_or_day(value)
    if found is None:
        raise BadAuditFilter(
            f"{name}: {value[:40]!r} is no time; write 2h for two hours ago, or a time in UTC such as "
            "2026-11-26T09:00"
        )
    return found.replace(tzinfo=None).isoformat()


def _find_time(text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    span = read_span(text)
    return datetime.fromisoformat(text).replace(tzinfo=UTC) if span is None else now - span


def _subject(name: str, value: str) -> int:
    """An id, from a text such as `7` or `incident/7`."""
    found = re.fullmatch(rf"(?:{name}/)?([0-9]{{1,19}})", value)
    if found is None or int(found[1]) > LARGEST_ID:
        raise BadAuditFilter(f"{name}: {value[:40]!r} is no id; write 7 or {name}/7")
    return int(found[1])


_READERS: Mapping[str, Callable[[str, str], Any]] = (
    dict.fromkeys(TEXTS, _text)
    | dict.fromkeys(TIMES, _time)
    | dict.fromkeys(SUBJECTS, _subject)
    | {"outcome": _outcome}
)


def _limit(value: str) -> int:
    if value not in {str(limit) for limit in LIMITS}:
        raise BadAuditFilter(
            f"limit: a page has {', '.join(map(str, LIMITS))} decisions, not {value[:40]}"
        )
    return int(value)
