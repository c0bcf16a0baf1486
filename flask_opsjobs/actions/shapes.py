"""Holds the values of an action: a plan, its preview, and the receipt that says what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Change:
    """One value of a target that will differ, in words; None is nothing."""

    what: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Item:
    """A target that can be acted on: `job/42`, what it is called, what will change. `note` says when or how."""

    target: str
    name: str
    changes: tuple[Change, ...]
    note: str | None = None


@dataclass(frozen=True)
class Skip:
    """A target that cannot be acted on, with a stable code and a sentence."""

    target: str
    name: str | None
    code: str
    says: str


@dataclass(frozen=True)
class Plan:
    """What an action would do now. The same targets in the same states have the same `fingerprint`."""

    action: str
    items: tuple[Item, ...]
    skipped: tuple[Skip, ...]
    risk: str
    fingerprint: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def targets(self) -> tuple[str, ...]:
        """Everything that was asked for, in order."""
        return (*(item.target for item in self.items), *(skip.target for skip in self.skipped))

    @property
    def subject(self) -> str:
        """What it is about, in a few words: `job/42`, `queue/mail`, `3 jobs`."""
        if len(self.targets) == 1:
            return self.targets[0]
        kind = self.targets[0].partition("/")[0] if self.targets else "target"
        return f"{len(self.targets)} {kind}s"


@dataclass(frozen=True)
class Receipt:
    """What became of a preview. `code` is None when it was done, else why it was refused: a stable word.

    `done` are the targets that were changed; `drifted` says what had changed since the preview: then nothing was done.
    `audit_sequence` is the number of its audit row.
    """

    outcome: str
    action: str
    code: str | None
    says: str
    audit_sequence: int | None
    done: tuple[Item, ...] = ()
    skipped: tuple[Skip, ...] = ()
    drifted: tuple[Change, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether it was carried out."""
        return self.outcome == "done"


@dataclass(frozen=True)
class Preview:
    """A plan that was shown to one actor, who may execute it once with the `token`, until `expires_at`."""

    id: int
    token: str
    actor: str
    plan: Plan
    created_at: datetime
    expires_at: datetime
    spent_at: datetime | None = None
    receipt: Receipt | None = None
