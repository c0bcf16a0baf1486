"""Serves preferences, help, and the problem for addresses without a page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NoReturn

from flask import current_app, redirect, request
from werkzeug import Response
from werkzeug.exceptions import HTTPException

from ...core.versions import read_versions
from ...limits.words import GLOSSARY
from . import access, links, pages, problems, shell
from .host import host

# The keys of the script, in the order of the help page, which adds the navigation's: `g` and a letter.
KEYS = (
    ("?", "this help"),
    ("/", "into the search box"),
    ("j k", "to the next and the previous row"),
    ("Enter", "open the row"),
    ("x", "select the row"),
    ("a", "select all jobs that match"),
    ("r", "refresh now"),
    ("t", "the other theme"),
    ("Esc", "close, or give the selection up"),
)


def display() -> Response:
    """Store the preferences that were sent. A script gets 204; a form is led back to its page."""
    is_script = "HX-Request" in request.headers
    response = Response(status=204) if is_script else redirect(links.read_back(), 303)
    shell.keep_preferences(response, links.root())
    return response


def help() -> Response:
    """The document with the keys, the actor's permissions and the installed versions."""
    return pages.document(
        "help.html",
        "",
        "Help",
        datetime.now(UTC),
        keys=KEYS,
        words=GLOSSARY,
        bridge=host().bridge.says,
        navigation=access.list_navigation(),
        permissions={name: access.may(name) for name in access.PERMISSIONS},
        back=links.read_back(),
        help_url=links.of_the_host(host().settings.help_url),
        versions=read_versions(),
    )


def missing(**_parts: str) -> NoReturn:
    """Raise the problem for this address: no such page, or another method."""
    adapter = current_app.create_url_adapter(request)
    assert adapter is not None
    for method in ("GET", "POST"):
        try:
            endpoint, _ = adapter.match(method=method)
        except HTTPException:
            continue
        if endpoint != request.endpoint:
            raise problems.wrong_method(request.method, method)
    raise problems.no_such_page()
