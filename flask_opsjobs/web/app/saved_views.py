"""Lists, saves and deletes a person's own views of a page, for each page that has a filter to save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from flask import redirect, request, url_for
from sqlalchemy.orm import Session
from werkzeug import Response

from ...core.reading import Reading
from ...jobs.search import saved_views
from ...jobs.search.saved_views import View
from ...jobs.search.terms import read_own
from . import access, problems
from .display import PageDisplay
from .host import asking, host


def list_own_views(read: Reading, page: str, query: Mapping[str, str]) -> dict[str, Any]:
    """The template variables of `_views.html`: the actor's views of the page, and the one that is shown.

    Their names have passed the display policy. `query` is that of the filter shown.
    """
    here = urlencode(query)
    views = _shown(saved_views.list_views(read.session, _owner(), page))
    current = next((view for view in views if view.query == here), None)
    return {"views": views, "query_text": here, "current": current}


def save_own_view(page: str, query: Mapping[str, str]) -> Response:
    """Save the filter under the `name` of the form, and lead to its page."""
    with asking(), Session(host().pages) as session, session.begin():
        try:
            name = request.form.get("name", "")
            saved_views.save_view(session, _owner(), page, name, urlencode(query))
        except saved_views.BadView as error:
            raise problems.unreadable(str(error)) from error
    values: dict[str, Any] = dict(query)
    return redirect(url_for(f"opsjobs.{page}", **values), 303)


def delete_own_view(page: str, view_id: str) -> Response:
    """Delete a saved view, and lead to the page."""
    number = read_own(view_id)
    with asking(), Session(host().pages) as session, session.begin():
        if number is None or not saved_views.delete_view(session, _owner(), page, number):
            raise problems.no_such_view()
    return redirect(url_for(f"opsjobs.{page}"), 303)


def _shown(views: Sequence[View]) -> Sequence[View]:
    display = PageDisplay(host().display, may_see=True)
    return [replace(view, name=display.label(view.name)) for view in views]


def _owner() -> str:
    actor = access.actor()
    assert actor is not None  # checked before the view is called
    return actor
