"""Filters the list of decisions: reads a filter from a query string and writes it back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import OpsJobsError
from .models import OUTCOMES

LIMITS = (25, 50, 100)
_LONGEST = 200
_CONDITIONS = ("actor", "action", "outcome", "q")
_TARGET = re.compile(r"(?:job|queue|cron|limiter|incident|failure|operation)/.+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class BadAuditFilter(OpsJobsError):
    """An invalid filter. The message names the field and says what is allowed."""


@dataclass(frozen=True)
class AuditFilter:
    """The conditions that a decision must meet, and how many decisions a page shows.

    `q` is searched in the targets and the reason. Written as `job/42` or `cron/sync` it means exactly that
    target.
    """

    actor: str | None = None
    action: str | None = None
    outcome: str | None = None
    q: str | None = None
    limit: int = LIMITS[0]

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> AuditFilter:
        """Read the filter from a query string. Empty values count as absent. Raises `BadAuditFilter`."""
        found: dict[str, Any] = {
            name: _text(name, value)
            for name in _CONDITIONS
            if (value := query.get(name, "").strip())
        }
        if found.get("outcome", OUTCOMES[0]) not in OUTCOMES:
            raise BadAuditFilter(
                f"outcome: there is no outcome {found['outcome']!r}; known are {', '.join(OUTCOMES)}"
            )
        if limit := query.get("limit"):
            found["limit"] = _limit(limit)
        return cls(**found)

    def to_query(self) -> dict[str, str]:
        """The shortest parameters of a URL that `from_query` reads as this filter."""
        query = {name: value for name in _CONDITIONS if (value := getattr(self, name))}
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
    def is_given(self) -> bool:
        """Whether it has any condition."""
        return any(getattr(self, name) for name in _CONDITIONS)

    @property
    def conditions(self) -> str:
        """A text that is equal for filters with the same conditions. Page cursors are bound to it."""
        return repr([(name, getattr(self, name)) for name in _CONDITIONS])


def _text(name: str, value: str) -> str:
    if _CONTROL.search(value):
        raise BadAuditFilter(f"{name}: holds a control character")
    if len(value) > _LONGEST:
        raise BadAuditFilter(f"{name}: has at most {_LONGEST} characters")
    return value


def _limit(value: str) -> int:
    if value not in {str(limit) for limit in LIMITS}:
        raise BadAuditFilter(
            f"limit: a page has {', '.join(map(str, LIMITS))} decisions, not {value[:40]}"
        )
    return int(value)
