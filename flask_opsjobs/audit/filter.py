"""Holds which decisions a list shows: one frozen value, read from the query string and written into it."""

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
_TARGET = re.compile(r"(?:job|queue|cron|limiter)/.+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class BadAuditFilter(OpsJobsError):
    """A filter that cannot be read; the message names the field and says what is allowed."""


@dataclass(frozen=True)
class AuditFilter:
    """All that must hold of a decision, and how many a page shows.

    `q` is a text in the target or the reason, or, written as `job/42` or `cron/sync`, exactly that target.
    """

    actor: str | None = None
    action: str | None = None
    outcome: str | None = None
    q: str | None = None
    limit: int = LIMITS[0]

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> AuditFilter:
        """The filter in a query string; empty values count as absent. Raises `BadAuditFilter`."""
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
        """The shortest query string that `from_query` reads as this filter, as parameters of a URL."""
        query = {name: value for name in _CONDITIONS if (value := getattr(self, name))}
        return query if self.limit == LIMITS[0] else query | {"limit": str(self.limit)}

    def but(self, **changes: Any) -> AuditFilter:
        """This filter with something else in some places; None takes a condition away."""
        return replace(self, **changes)

    @property
    def target(self) -> str | None:
        """The one target that is asked for."""
        return self.q if self.q and _TARGET.fullmatch(self.q) else None

    @property
    def text(self) -> str | None:
        """The text that is searched for."""
        return None if self.target else self.q

    @property
    def is_given(self) -> bool:
        """Whether it leaves anything out."""
        return any(getattr(self, name) for name in _CONDITIONS)

    @property
    def conditions(self) -> str:
        """A text that is equal for two filters if they choose the same events; cursors are bound to it."""
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
