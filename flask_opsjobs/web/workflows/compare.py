"""The page that compares two runs of workflows step by step."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Response, request

from ...core.display import Display
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...jobs.search import terms
from ...workflows import queries
from ...workflows.compare_runs import Comparison, compare
from ...workflows.queries import RunRow, StepRow
from ..app import access, pages, problems
from ..app.host import heavy, host, reading
from .run import LARGE

_ROWS = 100


def compare_with_last_good(
    read: Reading, run: RunRow, steps: Sequence[StepRow]
) -> Comparison | None:
    """The run beside the last one of its name that finished, without the steps of large runs.

    None when there is none.
    """
    good = _find_last_good(read, run)
    if good is None:
        return None
    is_large = max(run.steps, good.steps) > LARGE
    if is_large:
        return Comparison(run, good, ())
    return compare(run, good, steps, queries.list_steps(read.session, good.id), read.now)


def comparison_page(workflow_id: str) -> Response:
    """The document that compares a run with the one that the address names, else with the last good one."""
    asked, show = request.args.get("with") or None, request.args.get("show") or None
    if show not in (None, "differs"):
        raise problems.unreadable(f"show: all steps, or only what differs, never {show[:40]!r}.")
    with reading() as read:
        one = _find(read, workflow_id)
        other = _find_last_good(read, one) if asked is None else _find(read, asked)
        access.require("workflows.view", None if other is None else f"workflow/{other.id}")
        is_large = max(one.steps, other.steps if other else 0) > LARGE
        with heavy(is_large):
            found = _compare(read, one, other) if other else None
    shown = [] if found is None else found.differing if show else found.steps
    pages_of = max(1, -(-len(shown) // _ROWS))
    number = _page_number(pages_of)
    name = Display(host().display, may_see=True).clean(one.name)
    return pages.document(
        "workflow_compare/page.html",
        "workflows",
        f"{name} {one.id} compared",
        read.now,
        run=one,
        found=found,
        show=show,
        asked=asked,
        rows=shown[(number - 1) * _ROWS : number * _ROWS],
        number=number,
        pages=pages_of,
    )


def _compare(read: Reading, one: RunRow, other: RunRow) -> Comparison:
    steps = start_reading(read.session, queries.list_steps, one.id)
    others = queries.list_steps(read.session, other.id)
    return compare(one, other, steps.value, others, read.now)


def _find(read: Reading, workflow_id: str) -> RunRow:
    number = terms.read_own(workflow_id.strip().removeprefix("workflow/"))
    run = None if number is None else queries.find_run_row(read.session, number)
    if run is None:
        raise problems.no_such_row("workflow", workflow_id)
    return run


def _find_last_good(read: Reading, run: RunRow) -> RunRow | None:
    """The last run of its name that finished, if the actor may see it."""
    good = queries.find_last_good(read.session, run)
    if good is None or not access.may("workflows.view", f"workflow/{good.id}"):
        return None
    return good


def _page_number(most: int) -> int:
    word = request.args.get("page") or "1"
    number = terms.read_own(word)
    if not number or number > most:
        raise problems.unreadable(f"page: {word[:40]!r} is not the number of a page.")
    return number
