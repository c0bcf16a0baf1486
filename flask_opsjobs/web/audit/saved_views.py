"""Saves and deletes a person's own views of the audit."""

from __future__ import annotations

from urllib.parse import parse_qsl

from flask import request
from werkzeug import Response

from ..app.saved_views import delete_own_view, save_own_view
from .list_request import read_filter


def save() -> Response:
    """Save the filter in `query` under `name`, and lead to its page."""
    wanted = read_filter(dict(parse_qsl(request.form.get("query", ""))))
    return save_own_view("audit", wanted.to_query())


def delete(view_id: str) -> Response:
    """Delete a saved view, and lead to the list."""
    return delete_own_view("audit", view_id)
