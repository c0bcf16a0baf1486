"""An explanation as plain values: the reasons why a job is not running, the deciding one first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Reason:
    """One reason. `code` is stable, the words are for people.

    `read` is what was read to know it (name: value as text), `witness` who says so, `read_at` when. `todo` is a sentence
    that says what helps; `action` and `target` name an action of the doorway (`queue.resume`, `queue/mail`) or are None.
    """

    code: str
    says: str
    read: Mapping[str, str]
    witness: str
    read_at: datetime
    todo: str
    action: str | None = None
    target: str | None = None


@dataclass(frozen=True)
class Explanation:
    """Why a job is not running, in order; no reasons when it is running, has ended, or is about to run.

    `clear` says in a few words each what was checked and is not in the way. `completeness` is `complete`,
    `partial evidence`, `history unavailable` or `unknown`; `lacking` says what could not be read.
    """

    job_id: int
    state: str
    reasons: tuple[Reason, ...]
    clear: tuple[str, ...]
    completeness: str
    lacking: tuple[str, ...]
    read_at: datetime
