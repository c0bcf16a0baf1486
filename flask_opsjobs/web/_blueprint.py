"""Makes the blueprint out of the table of URLs, with what guards every request."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Blueprint, request

from . import _access, _headers, _origin, _pages, _problems
from ._problems import Problem
from .urls import URLS, Url

_LONGEST_QUERY = 4_000
_LARGEST_FORM = 64_000


def make_blueprint() -> Blueprint:
    """A new blueprint named `opsjobs`; nothing of it touches a page of the host's."""
    blueprint = Blueprint("opsjobs", __name__)
    for url in URLS:
        blueprint.add_url_rule(
            url.rule,
            url.endpoint,
            _guarded(url),
            methods=url.methods,
            # OPTIONS would be answered before any check.
            provide_automatic_options=False,
            strict_slashes=False,
        )
    blueprint.register_error_handler(Problem, _pages.problem)
    blueprint.after_request(_headers.add)
    return blueprint


def _guarded(url: Url) -> Callable[..., Any]:
    """The view, behind the check of its permission and, for a verb, of where the request came from."""
    if url.kind == "asset":
        return url.view

    @wraps(url.view)
    def view(**arguments: Any) -> Any:
        _access.check(url.permission)
        if len(request.query_string) > _LONGEST_QUERY:
            raise _problems.too_long()
        if url.kind == "verb":
            _origin.check()
            request.max_content_length = _LARGEST_FORM
        return url.view(**arguments)

    return view
