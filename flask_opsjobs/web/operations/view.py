"""Shows operations: their list, a draft with the form that starts it, and how far one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, redirect, request, url_for
from markupsafe import Markup
from werkzeug import Response as AnyResponse

from ...actions import planning
from ...actions.domain import Action, Request, name_in
from ...actions.operator import Operator
from ...actions.registry import ACTIONS, actions_of
from ...actions.shapes import Receipt
from ...audit.queries import list_events_of
from ...audit.verify import find_chain_fault
from ...core.reading import Reading
from ...core.round_trips import StartedRead, start_reading
from ...jobs.queries import list_rows
from ...jobs.search.filter import JobFilter
from ...jobs.search.terms import BadFilter
from ...lifeline.queries import list_incidents_about
from ...operations import actions as operation_actions
from ...operations import queries
from ...operations.lifecycle import MEANINGS, RESULTS, TABS
from ...operations.queries import ListedOperation
from ...operations.stages import LASTING
from ..actions.view import cut_reason
from ..app import access, links, pages, problems, references, shell
from ..app.display import PageDisplay
from ..app.host import asking, host, reading
from ..app.problems import Problem
from . import draft, progress

MOST_RECEIPTS = 50
_STATUS = {"reason_too_short": 422, "reason_too_long": 422, "unauthorized": 403}
# Most actions of an operation need only its state; these are said on its page.
_LONGEST_CODE = 40


# --- the list


def page() -> Response:
    """The document with all operations."""
    query = _read_query()
    with reading() as read:
        made = _list(read, query)
    return pages.page(
        "operations/page.html", "lifeline", "Operations", read.now, live=made, query=query
    )


def live() -> Response:
    """The fragment of it that refreshes."""
    query = _read_query()
    with reading() as read:
        made = _list(read, query)
    return pages.fragment(made)


def _read_query() -> Mapping[str, str]:
    """The tab and the place in the list, as the address has them."""
    query = references.read_list_query({"state": TABS}, "after")
    references.require_place(query, references.read_place(query.get("after", "")))
    return query


def _list(read: Reading, query: Mapping[str, str]) -> Markup:
    tab, place = query.get("state", "all"), references.read_place(query.get("after", ""))
    rows = queries.page_of_tab(read.session, tab, place, queries.MOST_OPERATIONS + 1)
    shown = rows[: queries.MOST_OPERATIONS]
    last = shown[-1] if len(rows) > len(shown) else None
    older = last and references.write_place(last.ended_at or last.created_at, last.id)
    return pages.part(
        "operations/_live.html",
        read.now,
        operations=shown,
        actions=ACTIONS,
        tab=tab,
        tabs=TABS,
        older=older,
        is_first=place is None,
        meanings=MEANINGS,
    )


# --- the page of one


def operation_page(operation_id: str) -> AnyResponse:
    """The document: a draft with the form that starts it, or how far the operation is."""
    query = _read_receipts_query()
    with reading() as read:
        operation, sampling = _find_with_samples(read, operation_id)
        made = _part(read, operation, sampling, query)
    if operation.state == "draft":
        # It has a form, and stays as it is until somebody starts it.
        return _document(read, operation, made)
    return pages.page(
        "operation/page.html",
        "lifeline",
        f"Operation {operation.id}",
        read.now,
        query=query,
        live=made,
        operation=operation,
        is_live=True,
    )


def operation_live(operation_id: str) -> Response:
    """The fragment of it that refreshes."""
    query = _read_receipts_query()
    with reading() as read:
        made = _part(read, *_find_with_samples(read, operation_id), query)
    return pages.fragment(made)


def start(operation_id: str) -> AnyResponse:
    """Start a draft for the reason that was sent. A refusal shows its page again, with what was typed."""
    with reading() as read:
        operation = _find(read, operation_id)
    try:
        rate = draft.read_rate_field()
    except Problem as fault:
        return _refuse(operation, fault.status, f"{fault.says}.")
    receipt = _start(operation, rate)
    if receipt.is_done:
        shell.forget_sources()
        return redirect(url_for("opsjobs.operation", operation_id=operation.id), 303)
    return _refuse(operation, _STATUS.get(receipt.code or "", 409), f"{receipt.says}.")


def _start(operation: ListedOperation, rate: int | None) -> Receipt:
    actor = access.actor()
    assert actor is not None  # checked before the view is called
    with asking():
        return Operator(host()).run(
            "operation.start",
            [f"operation/{operation.id}"],
            actor=actor,
            reason=request.form.get("reason", ""),
            via="page",
            # An empty field is no limit, also when the draft has one.
            params={"rate": rate or 0},
            request_id=request.headers.get("X-Request-ID"),
        )


def _refuse(operation: ListedOperation, status: int, says: str) -> AnyResponse:
    """The page of an operation that was not started, with the reason why and what was typed."""
    typed = {name: cut_reason(request.form.get(name, "")) for name in ("reason", "rate")}
    with reading() as read:
        operation, sampling = _find_with_samples(read, str(operation.id))
        made = _part(
            read, operation, sampling, {}, refused=says[:1].upper() + says[1:], typed=typed
        )
    return _document(read, operation, made, status=status)


def _document(
    read: Reading, operation: ListedOperation, made: Markup, *, status: int = 200
) -> Response:
    return pages.document(
        "operation/page.html",
        "lifeline",
        f"Operation {operation.id}",
        read.now,
        status=status,
        live=made,
        operation=operation,
        is_live=False,
    )


def _find(read: Reading, operation_id: str) -> ListedOperation:
    return _find_with_samples(read, operation_id)[0]


def _find_with_samples(
    read: Reading, operation_id: str
) -> tuple[ListedOperation, StartedRead[Sequence[int]]]:
    target = operation_actions.read_target(f"operation/{operation_id}")
    number = 0 if target is None else int(name_in(target))
    sampling = draft.start_sampling(read, number)
    found = queries.find_operation(read.session, number)
    if found is None:
        raise problems.no_such_row("operation", operation_id)
    return found, sampling


def _read_receipts_query() -> Mapping[str, str]:
    """Which receipts are shown, and the number before which they begin, as the address has them."""
    names = ("result", "code", "before")
    query = {name: value for name in names if (value := request.args.get(name))}
    if "result" in query and (query["result"] not in RESULTS or query["result"] == "pending"):
        raise problems.unreadable(f"result: there is no result {query['result'][:40]!r}.")
    code = query.get("code", "")
    if len(code) > _LONGEST_CODE or not code.isprintable():
        raise problems.unreadable("code: this is no reason for which a job is skipped.")
    if "before" in query and not (query["before"].isascii() and query["before"].isdecimal()):
        raise problems.unreadable(f"before: {query['before'][:40]!r} is no number of a receipt.")
    return query


def _part(
    read: Reading,
    operation: ListedOperation,
    sampling: StartedRead[Sequence[int]],
    query: Mapping[str, str],
    *,
    refused: str | None = None,
    typed: Mapping[str, str] | None = None,
) -> Markup:
    deciding = start_reading(read, _plan_actions, operation)
    shared: dict[str, Any] = {
        "operation": operation,
        "action": ACTIONS[operation.action],
        "refused": refused,
        "wanted": _read_search(operation),
        "undo": operation_actions.say_undo(operation.action),
    }
    if operation.state == "draft":
        looked_at = draft.look_at_draft(read, operation, sampling)
        return pages.part(
            "operation_draft/_draft.html",
            read.now,
            draft=looked_at,
            typed=typed,
            **deciding.value,
            **shared,
        )
    may_audit = access.may("audit.view")
    target = f"operation/{operation.id}"
    more: dict[str, Any] = {
        "undone_by": start_reading(read.session, queries.find_undo_of, operation.id),
        "skipped": start_reading(read.session, queries.count_skipped_by_code, operation.id),
        "incidents": start_reading(read.session, list_incidents_about, target)
        if access.may("lifeline.view")
        else (),
        "events": start_reading(read.session, list_events_of, target) if may_audit else None,
        "chain_fault": start_reading(read.session, find_chain_fault) if may_audit else None,
    }
    receipts = start_reading(read, _receipts, operation, query)
    found = progress.look_at_progress(read, operation)
    return pages.part(
        "operation/_live.html",
        read.now,
        progress=found,
        stop_rule=progress.say_stop_rule(operation, found.recent),
        is_lasting=operation.code in LASTING,
        meaning=MEANINGS[operation.state],
        most_skipped=queries.MOST_SKIPPED,
        **more,
        **receipts.value,
        **deciding.value,
        **shared,
    )


def _receipts(
    read: Reading, operation: ListedOperation, query: Mapping[str, str]
) -> Mapping[str, Any]:
    before = int(query["before"][:18]) if "before" in query else None
    result, code = query.get("result"), query.get("code")
    found = queries.page_of_receipts(
        read.session, operation, before=before, result=result, code=code, limit=MOST_RECEIPTS + 1
    )
    shown = found[:MOST_RECEIPTS]
    jobs = list_rows(read.session, [row.job_id for row in shown]) if access.may("jobs.view") else ()
    return {
        "receipts": shown,
        "older": shown[-1].number if len(found) > len(shown) else None,
        "is_first": before is None,
        "result": result,
        "code": code,
        "jobs": {row.id: row for row in jobs},
        "shown_of": _make_shown_of(),
    }


def _make_shown_of() -> Any:
    def shown(job: int) -> PageDisplay:
        return PageDisplay(host().display, may_see=access.may_see_payload(f"job/{job}"))

    return shown


def _read_search(operation: ListedOperation) -> JobFilter | None:
    """The search that chose its jobs; None when it is of arguments that the reader may not see."""
    if operation.query is None:
        return None
    try:
        wanted = JobFilter.from_query(operation.query.items())
    except BadFilter:  # written by another version
        return None
    return None if wanted.needs_payload and not access.may_see_payload() else wanted


def _plan_actions(read: Reading, operation: ListedOperation) -> Mapping[str, Any]:
    """What the reader may do with it now: the buttons, why each is refused, and the start."""
    target = f"operation/{operation.id}"
    refusals = {
        action.short_name: start_reading(read, _find_refusal, target, action)
        for action in actions_of("operation")
        if operation.state in action.sources
    }
    buttons = [
        (ACTIONS[f"operation.{name}"], refusal.value)
        for name, refusal in refusals.items()
        if name != "start"
    ]
    return {
        "buttons": buttons,
        "cannot_start": refusals["start"].value if "start" in refusals else None,
        "to_action": links.to_action,
        "target": target,
    }


def _find_refusal(read: Reading, target: str, action: Action[Any]) -> str | None:
    """Why an action is refused now; None when it is not."""
    connection: Any = read.session.connection().connection.driver_connection
    params, who = dict.fromkeys(action.params), access.actor() or ""
    asked = Request(host(), action, (target,), params, who, "page", now=read.now)
    for skip in planning.make_plan(connection, asked).skipped:
        return skip.says.partition(": ")[2] or skip.says
    return None
