"""Makes drafts of operations from a search, and finds what a draft would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import current_app, redirect, request, url_for
from werkzeug import Response

from ...actions.domain import Request, name_in
from ...actions.registry import ACTIONS
from ...actions.shapes import Plan
from ...core.reading import Reading
from ...errors import ActionRefused
from ...jobs.queries import list_rows
from ...jobs.rows import JobRow
from ...operations import stages
from ...operations.operator import FASTEST, BulkOperator, FrozenCount, count_frozen, plan_samples
from ...operations.queries import ListedOperation
from ..app import access, problems
from ..app.host import asking, host
from ..jobs import list_request

# --- the click that freezes the jobs of a search


def make() -> Response:
    """Freeze the jobs of the search that was sent, for the action that was sent, and show the draft."""
    action = request.form.get("action", "")
    rate = _read_rate(request.form.get("rate", ""))
    wanted = list_request.read_searchable(_fields_of_search())
    actor = access.actor()
    assert actor is not None  # checked before the view is called
    try:
        with asking():
            draft = BulkOperator(host()).draft(action, wanted, actor=actor, via="page", rate=rate)
    except ActionRefused as refused:
        raise problems.no_draft(action[:40], refused.receipt.code, str(refused)) from refused
    return redirect(url_for("opsjobs.operation", operation_id=draft.id), 303)


def _fields_of_search() -> list[tuple[str, str]]:
    """The fields of the form that its address would have on the page of jobs."""
    others = {"action", "rate", "back", current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token")}
    return [pair for pair in request.form.items(multi=True) if pair[0] not in others]


def _read_rate(text: str) -> int | None:
    """How many jobs a second; None for an empty field. Raises the 422 `Problem` for anything else."""
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= FASTEST):
        raise problems.unreadable(
            f"rate: write a whole number from 1 to {FASTEST:,}, or nothing for no limit."
        )
    return int(text[:9])


# --- the page of a draft


@dataclass(frozen=True)
class DraftView:
    """What a draft would do, as of now. `rows` are those of the samples that the reader may see."""

    operation: ListedOperation
    counts: Sequence[FrozenCount]
    samples: Plan
    rows: Mapping[str, JobRow]

    @property
    def legal(self) -> Sequence[FrozenCount]:
        """The frozen jobs that are in a state in which the action is legal."""
        return [count for count in self.counts if count.is_legal]

    @property
    def illegal(self) -> Sequence[FrozenCount]:
        """The other ones: they are skipped for sure, unless their state changes."""
        return [count for count in self.counts if not count.is_legal]

    def becomes(self, state: str) -> str | None:
        """What the samples of this state become; None when no sample has it."""
        for item in self.samples.items:
            for change in item.changes:
                if change.before == state and change.what in ("state", "job"):
                    return change.after or "deleted"
                if change.what == "new job" and item.facts.get("state") == state:
                    return change.after
        return None

    @property
    def skipped(self) -> Mapping[tuple[str, str], Sequence[str]]:
        """The samples that would be skipped: their ids by code and reason."""
        groups: dict[tuple[str, str], list[str]] = {}
        for skip in self.samples.skipped:
            why = skip.says.partition(": ")[2] or skip.says
            groups.setdefault((skip.code, why), []).append(name_in(skip.target))
        return groups

    @property
    def stages(self) -> Sequence[int]:
        """How many jobs each stage has."""
        bounds = [stages.bounds_of_stage(n, 0, self.operation.targets) for n in (1, 2, 3, 4)]
        return [high - low for low, high in bounds if high > low]


def look_at_draft(read: Reading, operation: ListedOperation) -> DraftView:
    """Plan the samples of a draft as of now, as for the person who made it. Writes nothing."""
    connection: Any = read.session.connection().connection.driver_connection
    action = ACTIONS[operation.action]
    asked = Request(host(), action, (), {}, operation.actor, "page", now=read.now)
    samples = plan_samples(connection, asked, operation.id, operation.targets)
    ids = [int(name_in(target)) for target in samples.targets]
    rows = list_rows(read.session, ids) if access.may("jobs.view") else ()
    return DraftView(
        operation,
        count_frozen(connection, action, operation.id),
        samples,
        {f"job/{row.id}": row for row in rows},
    )
