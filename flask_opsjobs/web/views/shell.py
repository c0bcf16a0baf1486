"""What belongs to every page: how it is displayed, and what answers where there is none."""

from __future__ import annotations

from typing import NoReturn

from flask import redirect, request
from werkzeug import Response

from .. import _pages, _preferences, _problems


def display() -> Response:
    """Keep the preferences that were sent, and go back to the page they were sent from."""
    back = request.form.get("back", "")
    # Only ever to a page of ours: neither to another site nor to another page of the host.
    root = _pages.root()
    is_ours = back.isprintable() and (back == root or back.startswith((f"{root}/", f"{root}?")))
    # A browser would climb out of our pages by its dot segments.
    is_ours = is_ours and ".." not in back.partition("?")[0].replace("%2e", ".").replace("%2E", ".")
    response = redirect(back if is_ours else root, 303)
    _preferences.keep(response, root)
    return response


def missing(rest: str) -> NoReturn:
    """Nothing is at this address."""
    raise _problems.no_such_page()
