"""Holds an explanation as plain values: the reasons why a job is not running, the deciding one first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

# Of the JSON that `Explanation.to_json` makes; grows when a key goes or changes its meaning.
JSON_VERSION = 1


@dataclass(frozen=True)
class Reason:
    """One reason. `code` is stable, the words are for people.

    `read` is what was read to know it (name: value as text), `source` who reported it, `read_at` when. `todo` is a
    sentence that says what helps; `action` and `target` name an action (`queue.resume`, `queue/mail`)
    or are None. `by` and `quote` are who decided so and what that person wrote; `since` and `until` when it began and
    when it ends by itself, where that is known. What a host or a person wrote is as it is stored: doors pass it
    through the display policy. `passes` says that it goes by itself, by time or in turn.
    """

    code: str
    says: str
    read: Mapping[str, str]
    source: str
    read_at: datetime
    todo: str
    action: str | None = None
    target: str | None = None
    by: str | None = None
    quote: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    passes: bool = False


@dataclass(frozen=True)
class Explanation:
    """Why a job is not running, in order; no reasons when it is running, has ended, or is about to run.

    `says` is the whole in one sentence. `clear` says in a few words each what was checked and is not in the way.
    `completeness` is `complete`, `partial evidence`, `history unavailable` or `unknown`; `lacking` says what could not
    be read.
    """

    job_id: int
    state: str
    reasons: tuple[Reason, ...]
    clear: tuple[str, ...]
    completeness: str
    lacking: tuple[str, ...]
    read_at: datetime
    says: str

    def to_json(self, clean: Callable[[str], str]) -> dict[str, Any]:
        """What `json.dumps` takes; `clean` is asked about every text that may hold what a host or a person wrote."""
        return {
            "schema_version": JSON_VERSION,
            "job_id": self.job_id,
            "state": self.state,
            "says": clean(self.says),
            "reasons": [_reason(reason, clean) for reason in self.reasons],
            "clear": [clean(text) for text in self.clear],
            "completeness": self.completeness,
            "lacking": list(self.lacking),
            "read_at": self.read_at.isoformat(),
        }


def _reason(reason: Reason, clean: Callable[[str], str]) -> dict[str, Any]:
    def cleaned(text: str | None) -> str | None:
        return None if text is None else clean(text)

    def moment(value: datetime | None) -> str | None:
        return None if value is None else value.isoformat()

    return {
        "code": reason.code,
        "says": clean(reason.says),
        "by": cleaned(reason.by),
        "quote": cleaned(reason.quote),
        "since": moment(reason.since),
        "until": moment(reason.until),
        "read": {name: clean(value) for name, value in reason.read.items()},
        "source": reason.source,
        "read_at": reason.read_at.isoformat(),
        "todo": clean(reason.todo),
        "passes": reason.passes,
        "action": reason.action,
        "target": reason.target,
    }
