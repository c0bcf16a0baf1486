"""Holds an explanation as plain values: the reasons why a job is not running, the deciding reason first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

# The version of the JSON of `Explanation.to_json`. It grows when a key is removed or changes its meaning.
JSON_VERSION = 1


@dataclass(frozen=True)
class Reason:
    """One reason. `code` is a stable word; `says` is a sentence for people.

    `read` holds the values that prove it (name: value as text), `source` who reported them, `read_at` when
    they were read. `todo` is a sentence that says what helps. `action` and `target` name an operator's action
    that helps (`queue.resume`, `queue/mail`), or are None. `by` is the person who decided it and `quote` what
    that person wrote. `since` and `until` are when it began and when it ends by itself, if known. Texts of an
    application or a person are as stored: pages, commands and exports pass them through the display policy.
    `passes`: the reason goes away by itself, with time or when it is the job's turn.
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
    """Why a job is not running. There are no reasons when it is running, has ended, or is about to run.

    `reasons` are ordered, the deciding reason first. `says` sums them up in one sentence. `clear` lists the
    checks that found no reason, in a few words each. `completeness` is `complete`, `partial evidence`,
    `history unavailable` or `unknown`; `lacking` lists what could not be read.
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
        """A dict for `json.dumps`.

        `clean` is called with every text that an application or a person may have written.
        """
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
