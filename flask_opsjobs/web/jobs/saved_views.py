"""Saves and deletes a person's own views of the jobs page."""

from __future__ import annotations

from urllib.parse import parse_qsl

from flask import request
from werkzeug import Response

from ...jobs.search.filter import JobFilter
from ...jobs.search.terms import BadFilter
from ..app import access, problems
from ..app.saved_views import delete_own_view, save_own_view


def save() -> Response:
    """Save the filter in `query` under `name`, and lead to its page."""
    try:
        wanted = JobFilter.from_query(parse_qsl(request.form.get("query", "")))
    except BadFilter as error:
        raise problems.unreadable(f"{error}.") from error
    if wanted.needs_payload and not access.may_see_payload():
        raise problems.denied(access.PAYLOAD)
    return save_own_view("jobs", wanted.to_query())


def delete(view_id: str) -> Response:
    """Delete a saved view, and lead to the list."""
    return delete_own_view("jobs", view_id)
