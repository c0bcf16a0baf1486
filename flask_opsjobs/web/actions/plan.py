"""Starts every action: makes a plan, stores it as a preview, and redirects to its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import redirect, request, url_for
from werkzeug import Response

from ...actions.catalog import MOST_TARGETS, Action
from ...actions.operator import Operator
from ...errors import ActionRefused
from ...jobs.search import terms
from ...limits.actions import make_target
from ..app import access, back, partition, problems
from ..app.host import host
from ..app.reading import asking
from . import preview as previews


def on_picked(action: Action) -> Callable[[], Response]:
    """A view that starts the action on all jobs selected in a list."""

    def view() -> Response:
        return start(action, [f"job/{number}" for number in _picked()])

    return view


def on_job(action: Action) -> Callable[[str], Response]:
    """A view that starts the action on one job."""

    def view(job_id: str) -> Response:
        number = terms.read_own(job_id)
        if number is None:
            raise problems.no_such_job(job_id)
        return start(action, [f"job/{number}"])

    return view


def on_named(action: Action) -> Callable[[str], Response]:
    """A view that starts the action on a queue or cron entry, with the parameters from its form."""

    def view(name: str) -> Response:
        params = {param: request.form.get(param, "").strip() for param in action.params}
        return start(action, [f"{action.domain}/{name}"], params)

    return view


def on_limiter(action: Action) -> Callable[[str], Response]:
    """A view that starts the action on a limiter, or on the partition in the address."""

    def view(limiter: str) -> Response:
        params = {param: request.form.get(param, "").strip() for param in action.params}
        return start(action, [make_target(limiter, partition.asked())], params)

    return view


def _picked() -> Sequence[int]:
    texts = list(dict.fromkeys(request.form.getlist("job")))
    if not texts:
        raise problems.unreadable("No job is picked.")
    if len(texts) > MOST_TARGETS:
        raise problems.unreadable(f"At most {MOST_TARGETS} jobs at once; {len(texts)} are picked.")
    numbers = [terms.read_own(text) for text in texts]
    if None in numbers:
        wrong = texts[numbers.index(None)]
        raise problems.unreadable(f"job: {wrong[:40]!r} is not the id of a job.")
    return [number for number in numbers if number is not None]


def start(action: Action, targets: Sequence[str], params: Mapping[str, Any] = {}) -> Response:
    """Make the plan, store it as a preview, and redirect to its page."""
    actor = access.actor()
    assert actor is not None  # checked before the view is called
    try:
        with asking():
            made = Operator(host()).preview(
                action.name, targets, actor=actor, via="page", params=params
            )
    except ActionRefused as refused:  # the request is invalid, whatever the state
        raise problems.unreadable(f"{str(refused)[:200]}.") from refused
    if typed := request.form.get("reason", ""):
        # Keep the reason typed before a refusal. No redirect: addresses are written to logs.
        return previews.show_again(made.id, typed)
    return redirect(url_for("opsjobs.preview", preview_id=made.id, back=back.read_back()), 303)
