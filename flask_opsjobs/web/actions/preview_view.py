"""Prepares a preview for its template: a plan with its form, or its outcome, in words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import url_for

from ...actions.domain import Action, name_in
from ...actions.execution import LONGEST_REASON
from ...actions.registry import ACTIONS
from ...actions.shapes import Change, Plan, Preview, Receipt, Skip
from ...jobs.actions import merge_notes
from ...limits.actions import split_target

_REFUSALS = {
    "drifted": "something has changed",
    "expired": "this preview has expired",
    "spent": "this preview was used already",
    "unauthorized": "a permission is missing",
    "illegal": "nothing is left that it could be done to",
    "unknown_target": "it is not there any more",
}
# A change with more different values than this, or with a different one per target, shows only their number.
_MOST_PAIRS = 3


@dataclass(frozen=True)
class SheetLine:
    """One change that is the same for `count` targets."""

    what: str
    before: str | None
    after: str | None
    count: int


@dataclass(frozen=True)
class PreviewView:
    """A preview in one of the states `open`, `empty`, `expired`, `done`, `refused`.

    `typed` is the reason that was typed so far.
    """

    preview: Preview
    receipt: Receipt | None
    state: str
    typed: str = ""
    fault: str | None = None

    @classmethod
    def of(cls, preview: Preview, now: datetime) -> PreviewView:
        """The preview as its own page shows it."""
        if preview.receipt:
            return cls(preview, preview.receipt, "done" if preview.receipt.is_done else "refused")
        if not preview.plan.items:
            return cls(preview, None, "empty")
        return cls(preview, None, "expired" if preview.expires_at <= now else "open")

    @classmethod
    def after(cls, preview: Preview, receipt: Receipt, typed: str) -> PreviewView:
        """The preview right after an attempt to execute it."""
        if receipt.code == "reason_too_short":
            return cls(preview, None, "open", typed, receipt.says)
        if receipt.code == "reason_too_long":
            fault = (
                f"{receipt.says}; the field keeps the first {LONGEST_REASON:,} of {len(typed):,}"
            )
            return cls(preview, None, "open", cut_reason(typed), fault)
        state = "done" if receipt.is_done else "refused"
        return cls(preview, receipt, state, cut_reason(typed))

    @property
    def plan(self) -> Plan:
        """The plan of the preview."""
        return self.preview.plan

    @property
    def action(self) -> Action[Any]:
        """The action of the plan."""
        return ACTIONS[self.plan.action]

    @property
    def title(self) -> str:
        """A heading: the action and its targets, or that nothing was done."""
        if self.state == "refused" and self.receipt:
            return f"Nothing was done: {_REFUSALS.get(self.receipt.code or '', 'it was refused')}"
        if self.state == "expired":
            return "This preview has expired"
        if self.state == "empty":
            return f"Nothing to do: {_lower(self._phrase(self.plan.targets))}"
        return self._phrase(self.plan.targets)

    @property
    def button(self) -> str:
        """The button's text: the action and the targets that it will change."""
        return self._phrase([item.target for item in self.plan.items])

    @property
    def lines(self) -> Sequence[SheetLine]:
        """The changes. A change that is the same for many targets is one line."""
        pairs: dict[str, Counter[tuple[str | None, str | None]]] = {}
        for change in (change for item in self.plan.items for change in item.changes):
            pairs.setdefault(change.what, Counter())[change.before, change.after] += 1
        return [line for what, counted in pairs.items() for line in _lines(what, counted)]

    @property
    def skipped(self) -> Mapping[tuple[str, str], Sequence[Skip]]:
        """The skipped targets, by code and sentence; as executed, or else as planned."""
        found = self.receipt.skipped if self.state == "done" and self.receipt else self.plan.skipped
        groups: dict[tuple[str, str], list[Skip]] = {}
        for skip in found:
            # "cannot retry job 7: it is started": group by the text after the colon, which is the reason.
            groups.setdefault((skip.code, skip.says.rpartition(": ")[2]), []).append(skip)
        return groups

    @property
    def notes(self) -> Sequence[str]:
        """Notes about the changes; as executed, or else as planned. None when `new_jobs` shows them."""
        items = self.receipt.done if self.receipt else self.plan.items
        return [] if self.new_jobs else merge_notes(items)

    @property
    def new_jobs(self) -> Sequence[str]:
        """The ids of the jobs that the action created."""
        changes = [c for item in (self.receipt.done if self.receipt else ()) for c in item.changes]
        return [name_in(c.after) for c in changes if c.what == "new job" and c.after]

    @property
    def says(self) -> str:
        """One sentence: the outcome, or why there is nothing to do."""
        if self.receipt:
            return _sentence(self.receipt.says)
        if self.state == "expired":
            return "Nothing was done. A preview is valid for 15 minutes. Make a new one."
        skipped = self.plan.skipped
        return _sentence(skipped[0].says) if len(skipped) == 1 else "None of them allows it now."

    @property
    def drifted(self) -> Sequence[Change]:
        """The changes by others since the preview was made, because of which it was refused."""
        found = self.receipt.drifted if self.receipt else ()
        return [
            Change(_words(change.what), _moment(change.before), _moment(change.after))
            for change in found
        ]

    @property
    def has_payload(self) -> bool:
        """Whether the plan contains the arguments of a cron entry, which are payload."""
        return "args" in self.plan.params

    def is_payload(self, change: Change) -> bool:
        """Whether the change is about the arguments of a cron entry, as JSON. Entry names have no spaces."""
        return self.action.domain == "cron" and change.what.endswith(" args")

    @property
    def again(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """How to request the same preview again: the address, and the fields to send."""
        short_name = self.action.short_name
        names = [name_in(target) for target in self.plan.targets]
        fields = [(key, _typed(value)) for key, value in self.plan.params.items()]
        if self.action.domain == "job":
            picked = [("job", name) for name in names]
            return url_for(f"opsjobs.jobs_{short_name}"), [*picked, *fields]
        if self.action.domain == "limiter":
            limiter, partition = split_target(self.plan.targets[0])
            place = url_for(f"opsjobs.limiter_{short_name}", limiter=limiter, partition=partition)
            return place, fields
        return url_for(f"opsjobs.{self.action.domain}_{short_name}", name=names[0]), fields

    def _phrase(self, targets: Sequence[str]) -> str:
        domain = self.action.domain
        about = (
            f"{domain} {name_in(targets[0])}" if len(targets) == 1 else f"{len(targets)} {domain}s"
        )
        return _upper(self.action.on(about))


def cut_reason(typed: str) -> str:
    """The typed reason, cut to the longest that is allowed, so that no response becomes long."""
    return typed[:LONGEST_REASON]


def place(target: str) -> str:
    """The address of a target's page."""
    domain, name = target.partition("/")[0], name_in(target)
    if domain == "job":
        return url_for("opsjobs.job", job_id=name)
    if domain == "limiter":
        limiter, partition = split_target(target)
        return url_for("opsjobs.limiter", limiter=limiter, partition=partition)
    return url_for("opsjobs.cron_entry" if domain == "cron" else f"opsjobs.{domain}", name=name)


def _typed(value: Any) -> str:
    """A parameter of a plan as a form field."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def _words(text: str) -> str:
    return text.replace("/", " ", 1).replace("_", " ")


def _moment(text: str | None) -> str | None:
    """A text unchanged; an ISO timestamp as pages write moments."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return text
    return text if found.tzinfo is None else f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _sentence(text: str) -> str:
    return _upper(text) + ("" if text.endswith((".", "!", "?")) else ".")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _lines(what: str, counted: Counter[tuple[str | None, str | None]]) -> Iterator[SheetLine]:
    is_shared = len(counted) == 1 or len(counted) < counted.total()
    if is_shared and len(counted) <= _MOST_PAIRS:
        for (before, after), number in counted.items():
            yield SheetLine(what, before, after, number)
        return
    sides: list[Any] = [{pair[side] for pair in counted} for side in (0, 1)]
    words = [side.pop() if len(side) == 1 else f"{len(side)} different values" for side in sides]
    yield SheetLine(what, words[0], words[1], counted.total())
