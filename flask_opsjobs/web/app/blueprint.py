"""Makes the blueprint from the table of URLs, and guards every request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from typing import Any

from flask import Blueprint, g, request
from werkzeug import exceptions

from . import access, headers, links, pages, polls, problems, references
from .host import bring
from .problems import Problem
from .shell import read_sources_beside
from .urls import BRIDGE_URLS, URLS, Url

_LARGEST_FORM = 64_000


def make_blueprint() -> Blueprint:
    """A new blueprint named `opsjobs`. It changes no page of the host's."""
    return _make("opsjobs", URLS)


def make_bridge_blueprint() -> Blueprint:
    """A new blueprint named `opsjobs_bridge`, of RQ's own view, to be registered below the other one."""
    return _make("opsjobs_bridge", BRIDGE_URLS)


def _make(name: str, urls: Iterable[Url]) -> Blueprint:
    blueprint = Blueprint(name, __name__)
    views: dict[str, Callable[..., Any]] = {}
    for url in urls:
        blueprint.add_url_rule(
            url.rule,
            url.endpoint,
            views.setdefault(url.endpoint, _guarded(url)),
            methods=url.methods,
            # Flask would answer OPTIONS before any check of ours.
            provide_automatic_options=False,
            strict_slashes=False,
            merge_slashes=False,  # a queue's name may have two
        )
    blueprint.url_defaults(references.hide_partition)
    blueprint.register_error_handler(Problem, pages.problem)
    for error, made in _FAULTS.items():
        blueprint.register_error_handler(error, partial(_fault, made))
    blueprint.after_request(headers.add_headers)
    return blueprint


def _fault(made: Callable[[str], Problem], error: Exception) -> Any:
    """Answers with a problem page of ours instead of the host's error page."""
    return pages.problem(made(getattr(error, "description", None) or ""))


# By exception class, so that errors of the host's own checks on our URLs count too, such as Flask-WTF's.
_FAULTS: Mapping[type[Exception], Callable[[str], Problem]] = {
    exceptions.BadRequest: problems.bad_request,
    exceptions.RequestEntityTooLarge: lambda _: problems.too_large(),
    exceptions.InternalServerError: lambda _: problems.broken(),
}


def _guarded(url: Url) -> Callable[..., Any]:
    """The view behind its checks: the permission and, for an action or a file, the request's origin."""
    if url.kind == "asset":
        return url.view

    @wraps(url.view)
    def view(**arguments: Any) -> Any:
        g.opsjobs_kind = url.kind
        access.require_access(url.permission)
        if links.is_too_long():
            raise problems.too_long()
        if any("\0" in str(argument) for argument in arguments.values()):
            raise problems.no_such_page()  # Postgres stores no NUL, so nothing has such a name
        if url.kind == "file":
            access.refuse_cross_site_file()
        if url.kind == "action":
            access.require_same_origin()
            request.max_content_length = _LARGEST_FORM
        if url.kind in ("page", "fragment"):
            bring(read_sources_beside)
        if url.kind == "fragment":
            return polls.answer_poll(url.view, **arguments)
        return url.view(**arguments)

    return view
