"""Saves and deletes a person's own views of the jobs page."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

from flask import redirect, request, url_for
from sqlalchemy.orm import Session
from werkzeug import Response

from ...jobs.search import saved_views
from ...jobs.search.filter import JobFilter
from ...jobs.search.terms import BadFilter, read_own
from ..app import access, problems
from ..app.host import asking, host


def save() -> Response:
    """Save the filter in `query` under `name`, and lead to its page."""
    try:
        wanted = JobFilter.from_query(parse_qsl(request.form.get("query", "")))
    except BadFilter as error:
        raise problems.unreadable(f"{error}.") from error
    if wanted.needs_payload and not access.may_see_payload():
        raise problems.denied(access.PAYLOAD)
    query: dict[str, Any] = dict(wanted.to_query())
    with asking(), Session(host().pages) as session, session.begin():
        try:
            name = request.form.get("name", "")
            saved_views.save_view(session, _owner(), name, urlencode(query))
        except saved_views.BadView as error:
            raise problems.unreadable(str(error)) from error
    return redirect(url_for("opsjobs.jobs", **query), 303)


def delete(view_id: str) -> Response:
    """Delete a saved view, and lead to the list."""
    number = read_own(view_id)
    with asking(), Session(host().pages) as session, session.begin():
        if number is None or not saved_views.delete_view(session, _owner(), number):
            raise problems.no_such_view()
    return redirect(url_for("opsjobs.jobs"), 303)


def _owner() -> str:
    actor = access.actor()
    assert actor is not None  # checked before the view is called
    return actor
