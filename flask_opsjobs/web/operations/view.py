"""Shows operations: their list, a draft with its form, and how far one is, with its receipts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, redirect, request, url_for
from markupsafe import Markup
from werkzeug import Response as AnyResponse

from ...actions import planning
from ...actions.domain import Request
from ...actions.operator import Operator
from ...actions.registry import ACTIONS, actions_of
from ...actions.shapes import Item, Skip
from ...audit.queries import list_events_of
from ...core.reading import Reading
from ...operations import actions as operation_actions
from ...operations import queries
from ...operations.lifecycle import MEANINGS
from ...operations.queries import ListedOperation
from ..actions.view import cut_reason
from ..app import access, pages, problems, shell
from ..app.host import asking, host, reading
from . import draft

_STATUS = {"reason_too_short": 422, "reason_too_long": 422, "unauthorized": 403}
_TYPING = ("reason_too_short", "reason_too_long")


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
    """The fragment that refreshes."""
    query = _read_query()
    with reading() as read:
        made = _list(read, query)
    return pages.fragment(made)


def _read_query() -> Mapping[str, str]:
    before = request.args.get("before", "")
    if before and operation_actions.read_target(f"operation/{before}") is None:
        raise problems.unreadable(f"before: {before[:40]!r} is no id of an operation.")
    return {"before": before} if before else {}


def _list(read: Reading, query: Mapping[str, str]) -> Markup:
    before = query.get("before")
    found = queries.page_of_operations(read.session, before=int(before) if before else None)
    return pages.part(
        "operations/_live.html",
        read.now,
        operations=found,
        actions=ACTIONS,
        is_first=not before,
        meanings=MEANINGS,
    )


# --- the page of one


def operation_page(operation_id: str) -> AnyResponse:
    """The document: a draft with the form that starts it, or how far the operation is."""
    return _show(operation_id)


def operation_live(operation_id: str) -> Response:
    """The fragment that refreshes."""
    with reading() as read:
        operation = _find(read, operation_id)
        made = _part(read, operation)
    return pages.fragment(made)


def start(operation_id: str) -> AnyResponse:
    """Start a draft for the reason that was sent. A refusal shows its page again, with what was typed."""
    with reading() as read:
        operation = _find(read, operation_id)
    actor = access.actor()
    assert actor is not None  # checked before the view is called
    typed = request.form.get("reason", "")
    with asking():
        receipt = Operator(host()).run(
            "operation.start",
            [f"operation/{operation.id}"],
            actor=actor,
            reason=typed,
            via="page",
            request_id=request.headers.get("X-Request-ID"),
        )
    if receipt.is_done:
        shell.forget_sources()
        return redirect(url_for("opsjobs.operation", operation_id=operation.id), 303)
    status = _STATUS.get(receipt.code or "", 409)
    return _show(operation_id, status=status, refused=receipt.says, typed=cut_reason(typed))


def _show(
    operation_id: str, *, status: int = 200, refused: str | None = None, typed: str = ""
) -> AnyResponse:
    with reading() as read:
        operation = _find(read, operation_id)
        made = _part(read, operation, refused=refused, typed=typed)
    title = f"Operation {operation.id}"
    if operation.state == "draft" or status != 200:
        return pages.document(
            "operation/page.html",
            "lifeline",
            title,
            read.now,
            status=status,
            live=made,
            operation=operation,
            is_live=False,
        )
    return pages.page(
        "operation/page.html",
        "lifeline",
        title,
        read.now,
        live=made,
        operation=operation,
        is_live=True,
    )


def _find(read: Reading, operation_id: str) -> ListedOperation:
    target = operation_actions.read_target(f"operation/{operation_id}")
    found = None
    if target is not None:
        found = queries.find_operation(read.session, int(target.removeprefix("operation/")))
    if found is None:
        raise problems.no_such_row("operation", operation_id)
    return found


def _part(
    read: Reading, operation: ListedOperation, *, refused: str | None = None, typed: str = ""
) -> Markup:
    shared: dict[str, Any] = {
        "operation": operation,
        "action": ACTIONS[operation.action],
        "refused": refused,
        "decisions": _plan_actions(read, operation),
    }
    if operation.state == "draft":
        return pages.part(
            "operation_draft/_draft.html",
            read.now,
            draft=draft.look_at_draft(read, operation),
            typed=typed,
            **shared,
        )
    receipts = queries.page_of_receipts(read.session, operation)
    return pages.part(
        "operation/_live.html",
        read.now,
        receipts=receipts,
        skipped=queries.count_skipped_by_code(read.session, operation.id),
        events=list_events_of(read.session, f"operation/{operation.id}")
        if access.may("audit.view")
        else (),
        **shared,
    )


def _plan_actions(read: Reading, operation: ListedOperation) -> Mapping[str, Item | Skip]:
    """What each action on the operation would do now for the reader, or why it cannot, by its short name."""
    connection: Any = read.session.connection().connection.driver_connection
    who, target = access.actor() or "", f"operation/{operation.id}"
    found: dict[str, Item | Skip] = {}
    for action in actions_of("operation"):
        asked = Request(host(), action, (target,), {}, who, "page", now=read.now)
        plan = planning.make_plan(connection, asked)
        (found[action.short_name],) = plan.items or plan.skipped
    return found
