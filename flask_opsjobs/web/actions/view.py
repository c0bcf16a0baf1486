"""Serves the pages of an action: starts its plan, shows the preview, executes it and shows the outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from flask import redirect, request, url_for
from werkzeug import Response

from ...actions.domain import Action
from ...actions.operator import Operator
from ...actions.planning import MOST_TARGETS
from ...actions.previews import find_preview
from ...actions.registry import ACTIONS
from ...actions.shapes import Preview
from ...core.reading import Reading
from ...errors import ActionRefused
from ...jobs import actions as job_actions
from ...jobs.lifecycle import STATES
from ...jobs.queries import list_rows
from ...jobs.rows import Count
from ...jobs.search.queries import list_jobs
from ...limits.actions import make_target
from ..app import access, links, pages, problems, references, shell
from ..app.display import PageDisplay
from ..app.host import asking, host, reading
from ..jobs import list_request
from . import preview_view

_STATUS = {None: 200, "unauthorized": 403, "reason_too_short": 422, "reason_too_long": 422}


def on_picked(action: Action[Any]) -> Callable[[], Response]:
    """A view that starts the action on all jobs selected in a list."""

    def view() -> Response:
        return start(action, _picked())

    return view


def on_job(action: Action[Any]) -> Callable[[str], Response]:
    """A view that starts the action on one job."""

    def view(job_id: str) -> Response:
        target = job_actions.read_target(f"job/{job_id}")
        if target is None:
            raise problems.no_such_job(job_id)
        return start(action, [target])

    return view


def on_named(action: Action[Any]) -> Callable[[str], Response]:
    """A view that starts the action on a queue or cron entry."""

    def view(name: str) -> Response:
        return start(action, [f"{action.domain}/{name}"])

    return view


def on_limiter(action: Action[Any]) -> Callable[[str], Response]:
    """A view that starts the action on a limiter, or on the partition in the address."""

    def view(limiter: str) -> Response:
        return start(action, [make_target(limiter, references.asked_partition())])

    return view


def _picked() -> Sequence[str]:
    texts = list(dict.fromkeys(request.form.getlist("job")))
    if not texts:
        raise problems.unreadable("No job is picked.")
    if len(texts) > MOST_TARGETS:
        raise problems.unreadable(f"At most {MOST_TARGETS} jobs at once; {len(texts)} are picked.")
    targets = [job_actions.read_target(f"job/{text}") for text in texts]
    if None in targets:
        wrong = texts[targets.index(None)]
        raise problems.unreadable(f"job: {wrong[:40]!r} is not the id of a job.")
    return [target for target in targets if target is not None]


def start(
    action: Action[Any], targets: Sequence[str], params: Mapping[str, str] | None = None
) -> Response:
    """Make the plan, store it as a preview, and redirect to its page.

    `params` default to the fields of the form that have the names of the action's parameters.
    """
    actor = access.actor()
    assert actor is not None  # checked before the view is called
    if params is None:
        params = {param: request.form.get(param, "").strip() for param in action.params}
    try:
        with asking():
            made = Operator(host()).preview(
                action.name, targets, actor=actor, via="page", params=params
            )
    except ActionRefused as refused:  # the request is invalid, whatever the state
        raise problems.unreadable(f"{str(refused)[:200]}.") from refused
    if typed := request.form.get("reason", ""):
        # Keep the reason typed before a refusal. No redirect: addresses are written to logs.
        return show_again(made.id, typed)
    return redirect(url_for("opsjobs.preview", preview_id=made.id, back=links.read_back()), 303)


@dataclass(frozen=True)
class More:
    """How many jobs still match a filter, and the address of their list."""

    count: Count
    url: str


def page(preview_id: int) -> Response:
    """The document with the plan and its form, or with the outcome."""
    with reading() as read:
        view = preview_view.PreviewView.of(_find(read, preview_id), read.now)
        more = _more(view, read)
    return _show(view, read.now, more=more)


def show_again(preview_id: int, typed: str) -> Response:
    """A new preview, with the reason that was typed for a refused one."""
    with reading() as read:
        found = _find(read, preview_id)
    return _show(
        replace(preview_view.PreviewView.of(found, read.now), typed=preview_view.cut_reason(typed)),
        read.now,
    )


def submit(preview_id: int) -> Response:
    """Execute the preview. A script gets the preview with its outcome, a plain form is redirected to it."""
    actor = access.actor()
    assert actor is not None  # checked before the view is called
    _require_possible(preview_id)
    reason = request.form.get("reason", "")
    with asking():
        receipt = Operator(host()).execute(
            preview_id,
            request.form.get("token", ""),
            actor=actor,
            reason=reason,
            request_id=request.headers.get("X-Request-ID"),
            via="page",
        )
    if receipt.code == "foreign":
        raise problems.no_such_preview()
    if receipt.is_done:
        shell.forget_sources()
    if receipt.is_done and "HX-Request" not in request.headers:
        return redirect(
            url_for("opsjobs.preview", preview_id=preview_id, back=links.read_back()), 303
        )
    with reading() as read:
        view = preview_view.PreviewView.after(_find(read, preview_id), receipt, reason)
        more = _more(view, read)
    return _show(view, read.now, _STATUS.get(receipt.code, 409), more=more)


def _show(
    view: preview_view.PreviewView, now: datetime, status: int = 200, *, more: More | None = None
) -> Response:
    """The preview as a document; for a script, as a fragment."""
    may_see = access.may_see_payload(*view.plan.targets)
    display = PageDisplay(host().display, may_see=may_see)
    made = pages.part(
        "preview/_preview.html",
        now,
        display=display,
        view=view,
        plan=view.plan,
        preview=view.preview,
        receipt=view.receipt,
        states=STATES,
        place=preview_view.place,
        back=links.read_back(),
        more=more,
    )
    if request.method == "POST" and "HX-Request" in request.headers:
        return Response(made, status=status, mimetype="text/html")
    here, title = f"{view.action.domain}s", display.name(view.title)
    return pages.document("preview/page.html", here, title, now, status=status, content=made)


def _more(view: preview_view.PreviewView, read: Reading) -> More | None:
    """The jobs that still match the filter of the list, after an action on several of its jobs.

    The jobs of this action are not counted. None when no more match, or when no filtered list was open.
    """
    items = view.receipt.done if view.receipt and view.state == "done" else ()
    if len(items) < 2 or view.action.domain != "job" or not access.may("jobs.view"):
        return None
    wanted = list_request.read_address(links.read_back())
    if wanted is None or not (wanted.state or wanted.terms):
        return None
    done = [int(item.target.partition("/")[2]) for item in items]
    is_shown = list_request.is_shown(wanted)
    counts = list_jobs(read.session, wanted, read.now, is_shown=is_shown).counts
    total = counts[wanted.state] if wanted.state else Count.sum(counts.values())
    states = [row.state for row in list_rows(read.session, done)]
    left = [state for state in states if wanted.state in (None, state)]
    number = max(0, total.number - len(left))
    query: dict[str, Any] = dict(wanted.to_query())
    url = url_for("opsjobs.jobs", **query)
    return More(replace(total, number=number), url) if number else None


def _require_possible(preview_id: int) -> None:
    """Raise the problem for a number that does not fit into Postgres' bigint."""
    if preview_id >= 2**63:
        raise problems.no_such_preview()


def _find(read: Reading, preview_id: int) -> Preview:
    """The preview, if it belongs to the actor, who still needs its permission on one of its targets.

    Raises `Problem` otherwise.
    """
    _require_possible(preview_id)
    actor = access.actor()
    found = None if actor is None else find_preview(read.session, host().secrets, preview_id, actor)
    if found is None:
        raise problems.no_such_preview()
    access.require(ACTIONS[found.plan.action].permission, *found.plan.targets)
    return found
