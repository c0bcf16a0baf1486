"""Shows the list of runs, and the page of one run with its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from flask import Response, request
from markupsafe import Markup

from ...actions.domain import Action
from ...actions.registry import actions_of
from ...core.display import Display
from ...core.paging import cut_page
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...engine.explain_with_redis import explain
from ...explain.reason_kinds import Reason
from ...jobs.rows import Count
from ...jobs.search import terms
from ...notes.queries import list_notes
from ...workflows import queries
from ...workflows.actions import actions_of_run
from ...workflows.faults import LONGEST_NAME
from ...workflows.held_up import Doing, doing_of, how_it_ended, say_needs
from ...workflows.lifecycle import MEANINGS, NEEDS, STATES
from ...workflows.queries import HeldUpBy, RunPage, RunRow
from ..app import access, pages, problems, references
from ..app.display import PageDisplay
from ..app.host import host, reading
from ..app.order import Keys, ListOrder, read_order
from ..notes.view import form_of
from .compare import compare_with_last_good
from .pictures import draw_run, draw_timeline_of
from .run import STEP_ACTIONS, RunView, read_run

_ROWS = 25
# A run that takes so many times as long as usual is marked.
_SLOW = 2


@dataclass(frozen=True)
class RunLine:
    """A run in a list. `need` says why it needs a person; `step` is what holds it up."""

    run: RunRow
    step: HeldUpBy | None
    usual: float | None
    need: str | None
    now: datetime

    @property
    def doing(self) -> Doing | None:
        """What the step does."""
        return None if self.step is None else doing_of(self.step, self.now)

    @property
    def times(self) -> int:
        """How many times as long as usual it takes, rounded down; 0 when that is not known."""
        if not self.usual or self.run.state in ("failed", "canceled"):
            return 0
        times = int(self.run.seconds(self.now) / self.usual)
        return times if times >= _SLOW else 0


# So many of the newest runs are ordered by a column.
_MOST_ORDERED = 1_000
KEYS: Keys = {
    "name": lambda line: line.run.name,
    "state": lambda line: line.run.state,
    "settled": lambda line: line.run.settled / max(line.run.steps, 1),
    "takes": lambda line: line.run.seconds(line.now),
    "usual": lambda line: line.usual,
}
_REFUSED = {"waits": "What a run waits for is looked up for the runs of one page only."}


@dataclass(frozen=True)
class RunsRequest:
    """Which runs the address asks for, and the run before or after which the page begins."""

    state: str | None
    name: str | None
    order: ListOrder
    before: int | None
    after: int | None

    @property
    def query(self) -> Mapping[str, str]:
        """The conditions and the order as a query string."""
        return self.order.all_query

    def but(self, **changes: str | None) -> Mapping[str, str]:
        """The conditions with some of them changed; None removes one."""
        changed = {**self.query, **changes}
        return {key: value for key, value in changed.items() if value is not None}

    @property
    def is_front(self) -> bool:
        """Whether it is the first page of all runs, which shows those in need first."""
        return not self.query and self.before is None and self.after is None

    def cursor(self, side: str, found: RunPage) -> str | None:
        """The cursor for the next page on that side; None when there is none."""
        if not found.rows or not (found.has_older if side == "before" else found.has_newer):
            return None
        last = found.rows[-1 if side == "before" else 0]
        return references.make_cursor(host().secrets, _purpose(side, self.query), last.id)


def page() -> Response:
    """The document of the runs."""
    asked = _read_request()
    with reading() as read:
        made = _list(read, asked)
    cursors = {side: word for side in ("before", "after") if (word := request.args.get(side))}
    query = {**asked.query, **cursors}
    return pages.page(
        "workflows/page.html",
        "workflows",
        "Workflows",
        read.now,
        live=made,
        query=query,
        asked=asked,
    )


def live() -> Response:
    """The fragment of it that refreshes."""
    asked = _read_request()
    with reading() as read:
        made = _list(read, asked)
    return pages.fragment(made)


def workflow_page(workflow_id: str) -> Response:
    """The document of one run."""
    with reading() as read:
        view = _find(read, workflow_id)
        run = view.run.row
        made = _one(read, view)
    return pages.page(
        "workflow/page.html",
        "workflows",
        f"{Display(host().display, may_see=True).clean(run.name)} {run.id}",
        read.now,
        live=made,
        query=view.asked.query,
        run=run,
        step=view.step,
        step_actions=STEP_ACTIONS,
        **form_of(f"workflow/{run.id}"),
    )


def workflow_live(workflow_id: str) -> Response:
    """The fragment of it that refreshes."""
    with reading() as read:
        made = _one(read, _find(read, workflow_id))
    return pages.fragment(made)


# --- the list


def _read_request() -> RunsRequest:
    state, name = request.args.get("state") or None, request.args.get("name") or None
    if state is not None and state not in STATES:
        raise problems.unreadable(
            f"state: a workflow is {', '.join(STATES)}, never {state[:40]!r}."
        )
    if name is not None and ("\0" in name or len(name) > LONGEST_NAME):
        raise problems.unreadable(f"name: a text of at most {LONGEST_NAME} characters.")
    pairs = {"state": state, "name": name}
    query = {key: value for key, value in pairs.items() if value is not None}
    order = replace(read_order(KEYS, query, texts=("name", "state")), refused=_REFUSED)
    asked = RunsRequest(state, name, order, None, None)
    before, after = (_position(side, asked.query) for side in ("before", "after"))
    if before is not None and after is not None:
        raise problems.unreadable("before and after: a page begins at one of them.")
    return replace(asked, before=before, after=after)


def _position(side: str, query: Mapping[str, str]) -> int | None:
    word = request.args.get(side)
    if not word:
        return None
    try:
        return references.read_cursor(host().secrets, _purpose(side, query), word)
    except references.BadCursor as error:
        what = (
            f"{side}: this mark of a page was not made for these runs. Start from the first page."
        )
        raise problems.unreadable(what) from error


def _purpose(side: str, query: Mapping[str, str]) -> str:
    return f"workflows {side} {sorted(query.items())}"


def _list(read: Reading, asked: RunsRequest) -> Markup:
    session = read.session
    counting = start_reading(session, queries.count_runs_by_state)
    finding = start_reading(read, _find_page, asked)
    in_need = queries.list_runs_that_need_help(session, read.now)
    needs = {run.id: why for run, why in in_need}
    found, is_cut = finding.value
    lines = start_reading(read, _lines, found.rows, needs)
    troubled = [run for run, _ in in_need] if asked.is_front else []
    counts = counting.value
    return pages.part(
        "workflows/_live.html",
        read.now,
        asked=asked,
        counts=counts,
        everything=Count.sum(counts.values()),
        in_need=_lines(read, troubled, needs),
        lines=lines,
        meanings=MEANINGS,
        needs=NEEDS,
        say_needs=say_needs,
        how_it_ended=how_it_ended,
        cut_at=_MOST_ORDERED if is_cut else None,
        older=asked.cursor("before", found),
        newer=asked.cursor("after", found),
    )


def _find_page(read: Reading, asked: RunsRequest) -> tuple[RunPage, bool]:
    """The page, and whether there are older runs than those that were ordered."""
    wanted: dict[str, Any] = {"state": asked.state, "name": asked.name}
    where = {"before": asked.before, "after": asked.after}
    if asked.order.column is None:
        return queries.page_of_runs(read.session, **wanted | where, limit=_ROWS), False
    newest = queries.page_of_runs(read.session, **wanted, limit=_MOST_ORDERED)
    lines = [RunLine(run, None, None, None, read.now) for run in newest.rows]
    if asked.order.column == "usual":
        usual = queries.find_usual_seconds(read.session, {run.name for run in newest.rows})
        lines = [replace(line, usual=usual.get(line.run.name)) for line in lines]
    ordered = [line.run for line in asked.order.apply(lines, KEYS)]
    begin, end = cut_page([run.id for run in ordered], _ROWS, **where)
    return RunPage(ordered[begin:end], begin > 0, end < len(ordered)), newest.has_older


def _lines(read: Reading, runs: Sequence[RunRow], needs: Mapping[int, str]) -> Sequence[RunLine]:
    holding = start_reading(read.session, queries.find_what_holds_up, runs)
    usual = queries.find_usual_seconds(read.session, {run.name for run in runs})
    steps = holding.value
    return [
        RunLine(run, steps.get(run.id), usual.get(run.name), needs.get(run.id), read.now)
        for run in runs
    ]


# --- one run


def _find(read: Reading, workflow_id: str) -> RunView:
    number = terms.read_own(workflow_id)
    view = None if number is None else read_run(read, number)
    if view is None:
        raise problems.no_such_row("workflow", workflow_id)
    return view


def _one(read: Reading, view: RunView) -> Markup:
    run = view.run.row
    # One for all that is drawn, so that a name is cleaned once.
    display = PageDisplay(host().display, may_see=access.may_see_payload())
    good = start_reading(read, compare_with_last_good, run, view.steps.rows)
    held_by = start_reading(read, _find_reason, view)
    callbacks = start_reading(read.session, queries.list_callbacks, run.id)
    timing = start_reading(read.session, queries.find_usual_seconds, [run.name])
    notes = start_reading(read.session, list_notes, f"workflow/{run.id}")
    timeline = draw_timeline_of(read, view, display)
    return pages.part(
        "workflow/_live.html",
        read.now,
        display=display,
        view=view,
        run=run,
        step_url=view.step_url,
        job_url=view.job_url,
        good=good,
        held_by=held_by,
        graph=draw_run(view, display),
        timeline=timeline,
        usual=timing.value.get(run.name),
        callbacks=callbacks,
        notes=notes,
        meaning=MEANINGS[run.state],
        how_it_ended=how_it_ended,
        of_step=view.display_of_step(),
        actions=actions_of_run(run),
        actions_of_step=_actions_of_step(view),
        step_actions=STEP_ACTIONS,
        may_see_jobs=access.may("jobs.view"),
    )


def _find_reason(read: Reading, view: RunView) -> Reason | None:
    """Why the step that holds the run up does not start; None when it runs, or its state says it."""
    first = next(iter(view.steps.holding), None)
    if first is None or first.state not in ("scheduled", "available", "queued"):
        return None
    if not access.may("jobs.view", f"job/{first.id}"):
        return None
    why = explain(host(), read.session, first.id, read.now, names_partition=False)
    return (
        next((reason for reason in why.reasons if reason.code != "scheduled"), None)
        if why
        else None
    )


def _actions_of_step(view: RunView) -> Sequence[Action[Any]]:
    """Retry or cancel of the job of the chosen step, as its state allows."""
    if view.step is None or view.step.is_removed or view.run.row.state == "canceling":
        return []
    found = actions_of("job", view.step.state)
    return [action for action in found if action.short_name in ("retry", "cancel")]
