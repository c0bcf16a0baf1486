"""Makes drafts of operations from a search, and finds what a draft would do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import current_app, redirect, request, url_for
from markupsafe import Markup
from werkzeug import Response

from ...actions.domain import Request, name_in
from ...actions.registry import ACTIONS
from ...actions.shapes import Change, Plan
from ...core.reading import Reading
from ...core.round_trips import StartedRead, start_reading
from ...core.words import span
from ...errors import ActionRefused
from ...jobs.queries import list_rows
from ...jobs.rows import JobRow
from ...jobs.search.filter import LIMITS
from ...operations import queries, stages
from ...operations.actions import read_rate
from ...operations.operator import (
    BulkOperator,
    FrozenCount,
    judge_frozen,
    list_samples,
    plan_samples,
)
from ...operations.queries import ListedOperation
from ..app import access, problems
from ..app.display import PageDisplay
from ..app.host import asking, host
from ..jobs import list_request

# --- the click that freezes the jobs of a search


def make() -> Response:
    """Freeze the jobs of the search that was sent, for the action that was sent, and show the draft."""
    action = request.form.get("action", "")
    rate = read_rate_field()
    # The size of a page bounds no operation.
    wanted = list_request.read_searchable(_fields_of_search()).but(limit=LIMITS[0], sort=None)
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


def read_rate_field() -> int | None:
    """The field `rate` of the form; None when it is empty. Raises the 422 `Problem` for what is no rate."""
    try:
        return read_rate(request.form.get("rate"))
    except ValueError as wrong:
        raise problems.unreadable(str(wrong)) from None


# --- the page of a draft


@dataclass(frozen=True)
class Sample:
    """A job of a draft: what would change in it, or why it would be skipped. `error` may be shown."""

    target: str
    row: JobRow | None
    changes: Sequence[Change]
    skip: str | None
    error: Markup

    @property
    def id(self) -> str:
        """The id of the job."""
        return name_in(self.target)

    @property
    def after(self) -> str | None:
        """The state that the job gets, or `deleted`; None when its state stays."""
        return next(filter(None, map(_state_after, self.changes)), None)

    @property
    def also(self) -> str:
        """What else changes in it: `due: 14:20 → now, attempts allowed: 1 → 2`."""
        others = [change for change in self.changes if change.what not in ("state", "job")]
        return ", ".join(
            f"{change.what}: {change.before or 'nothing'} → {change.after or 'nothing'}"
            for change in others
        )


@dataclass(frozen=True)
class DraftView:
    """What a draft would do, as of now. `last` is how long the last finished one of its action took."""

    operation: ListedOperation
    counts: Sequence[FrozenCount]
    samples: Plan
    sampled: Sequence[Sample]
    last: ListedOperation | None

    @property
    def legal(self) -> Sequence[FrozenCount]:
        """The frozen jobs that are in a state in which the action is legal."""
        return [count for count in self.counts if count.is_legal]

    @property
    def illegal(self) -> Sequence[FrozenCount]:
        """The other ones: they are skipped for sure, unless their state changes."""
        return [count for count in self.counts if not count.is_legal]

    def becomes(self, state: str) -> str | None:
        """What a sample in this state becomes; None when no sample has it or its state stays."""
        changes = (change for each in self.sampled for change in each.changes)
        return next((_state_after(each) for each in changes if each.before == state), None)

    @property
    def legal_jobs(self) -> int:
        """How many jobs are in a state that allows the action."""
        return sum(count.number for count in self.legal)

    @property
    def illegal_jobs(self) -> int:
        """How many jobs are skipped for their state."""
        return self.operation.targets - self.legal_jobs

    @property
    def skipped(self) -> Mapping[tuple[str, str], Sequence[str]]:
        """The samples that would be skipped: their ids by code and reason."""
        groups: dict[tuple[str, str], list[str]] = {}
        for skip in self.samples.skipped:
            why = skip.says.partition(": ")[2] or skip.says
            groups.setdefault((skip.code, why), []).append(name_in(skip.target))
        return groups

    @property
    def takes(self) -> str:
        """How long it would take, or why that cannot be said: a sentence after "Takes"."""
        operation, last = self.operation, self.last
        at_least = ""
        if operation.rate:
            least = span(self.legal_jobs / operation.rate)
            at_least = f"at least {least} at {operation.rate:,} a second. More "
        if operation.makes_due:
            return (
                f"{at_least or 'a time that '}cannot be said before: it depends on how long the attempts of "
                "its jobs take."
            )
        if last is None or last.started_at is None or last.ended_at is None:
            none = "as no operation of this action with 100 jobs has finished lately."
            return f"{at_least or 'a time that '}cannot be said before, {none}"
        seconds = max(0.1, (last.ended_at - last.started_at).total_seconds())
        likely = span(max(1.0, self.legal_jobs * seconds / last.handled))
        return f"{at_least}about {likely} at the pace of operation {last.id}."

    @property
    def stages(self) -> Sequence[int]:
        """How many jobs each stage has."""
        bounds = [stages.bounds_of_stage(n, 0, self.operation.targets) for n in (1, 2, 3, 4)]
        return [high - low for low, high in bounds if high > low]


def _state_after(change: Change) -> str | None:
    if change.what not in ("state", "job"):
        return None
    return change.after or "deleted"


def start_sampling(read: Reading, operation: int) -> StartedRead[Sequence[int]]:
    """Start to choose the samples of a draft; none of an operation that was started."""
    connection: Any = read.session.connection().connection.driver_connection
    return start_reading(connection, list_samples, operation)


def look_at_draft(
    read: Reading, operation: ListedOperation, sampling: StartedRead[Sequence[int]]
) -> DraftView:
    """Plan the samples of a draft as of now, as for the reader who may start it, else as for its maker.

    Writes nothing.
    """
    connection: Any = read.session.connection().connection.driver_connection
    action = ACTIONS[operation.action]
    reader = access.actor() if access.may(action.permission) else None
    asked = Request(host(), action, (), {}, reader or operation.actor, "page", now=read.now)
    finding = start_reading(read.session, queries.find_last_finished, operation.action)
    ids = sampling.value
    listing = start_reading(read.session, list_rows, ids) if access.may("jobs.view") else None
    samples = plan_samples(connection, asked, ids)
    return DraftView(
        operation,
        judge_frozen(action, operation.frozen or ()),
        samples,
        list(_list_samples(ids, listing.value if listing else (), samples)),
        finding.value,
    )


def _list_samples(ids: Sequence[int], rows: Sequence[JobRow], samples: Plan) -> Iterator[Sample]:
    row_of = {row.id: row for row in rows}
    changes = {item.target: item.changes for item in samples.items}
    skips = {skip.target: skip.says.partition(": ")[2] or skip.says for skip in samples.skipped}
    for id in ids:
        target, row = f"job/{id}", row_of.get(id)
        display = PageDisplay(host().display, may_see=access.may_see_payload(target))
        error = display.line(row.error if row else None)
        yield Sample(target, row, changes.get(target, ()), skips.get(target), error)
