"""Holds the values of an action: its plan, its preview, and the receipt of what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from .effects import Effect


@dataclass(frozen=True)
class Change:
    """One value of a target that changes, as text; None means no value."""

    what: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Item:
    """A target that the action changes: `job/42`, its name for people, its changes.

    `note` adds when or how. `facts` are the values of the target that the plan depends on.
    """

    target: str
    name: str
    changes: tuple[Change, ...]
    note: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Skip:
    """A target that the action leaves unchanged, with a stable code and a sentence that says why."""

    target: str
    name: str | None
    code: str
    says: str
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


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
    def described(self) -> tuple[str, ...]:
        """Its targets without those of which it says nothing: who made it has no permission on them."""
        denied = {skip.target for skip in self.skipped if skip.code == "unauthorized"}
        return tuple(target for target in self.targets if target not in denied)

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """The facts of each requested target."""
        each: tuple[Item | Skip, ...] = (*self.items, *self.skipped)
        return {one.target: dict(one.facts) for one in each}

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
    `audit_sequence` is the number of its audit row, None when it was not audited. `effects` are what must
    happen in Redis after the commit.
    """

    outcome: str
    action: str
    code: str | None
    says: str
    audit_sequence: int | None
    done: tuple[Item, ...] = ()
    skipped: tuple[Skip, ...] = ()
    drifted: tuple[Change, ...] = ()
    effects: tuple[Effect, ...] = field(default=(), repr=False, compare=False)

    @property
    def is_done(self) -> bool:
        """Whether the action was executed."""
        return self.outcome == "done"


@dataclass(frozen=True)
class Preview:
    """A plan that `actor` made. Who opens it may execute it, with a `token` of their own, until `expires_at`.

    It is executed once, by one of them. `targets` are in the order of the request. `reused_at` is when
    somebody first tried to execute it a second time.
    """

    id: int
    token: str
    actor: str
    targets: tuple[str, ...]
    plan: Plan
    created_at: datetime
    expires_at: datetime
    spent_at: datetime | None = None
    reused_at: datetime | None = None
    receipt: Receipt | None = None


# The fields that only the execution itself reads: no stored row and no output of a command shows them.
_INTERNAL = {"facts", "effects"}


def write_json(value: Plan | Receipt | Item | Skip) -> dict[str, Any]:
    """The value as JSON, as a command prints it and a row stores it."""
    return asdict(
        value, dict_factory=lambda pairs: {key: of for key, of in pairs if key not in _INTERNAL}
    )
