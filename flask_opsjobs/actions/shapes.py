"""Holds the values of an action: its plan, its preview, and the receipt of what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Change:
    """One value of a target that changes, as text; None means no value."""

    what: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Item:
    """A target that the action changes: `job/42`, its name for people, its changes.

    `note` adds when or how.
    """

    target: str
    name: str
    changes: tuple[Change, ...]
    note: str | None = None


@dataclass(frozen=True)
class Skip:
    """A target that the action leaves unchanged, with a stable code and a sentence that says why."""

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
        """All requested targets: those to change, then those to skip."""
        return (*(item.target for item in self.items), *(skip.target for skip in self.skipped))

    @property
    def subject(self) -> str:
        """Its targets in a few words: `job/42`, `queue/mail`, `3 jobs`."""
        if len(self.targets) == 1:
            return self.targets[0]
        kind = self.targets[0].partition("/")[0] if self.targets else "target"
        return f"{len(self.targets)} {kind}s"


@dataclass(frozen=True)
class Receipt:
    """The result of an execution. `code` is None when it was done, else a stable word for why it was refused.

    `done` are the changed targets. `drifted` lists what had changed since the preview; then nothing was done.
    `audit_sequence` is the number of its audit row, None when it was not audited.
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
        """Whether the action was executed."""
        return self.outcome == "done"


@dataclass(frozen=True)
class Preview:
    """A plan that was shown to one actor, who may execute it once, with the `token`, until `expires_at`."""

    id: int
    token: str
    actor: str
    plan: Plan
    created_at: datetime
    expires_at: datetime
    spent_at: datetime | None = None
    receipt: Receipt | None = None
