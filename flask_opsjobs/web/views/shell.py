"""What belongs to every page: how it is displayed, and what answers where there is none."""

from __future__ import annotations

from typing import NoReturn

from flask import redirect
from werkzeug import Response

from .. import _back, _preferences, _problems


def display() -> Response:
    """Keep the preferences that were sent, and go back to the page they were sent from."""
    response = redirect(_back.read(), 303)
    _preferences.keep(response, _back.root())
    return response


def missing(rest: str) -> NoReturn:
    """Nothing is at this address."""
    raise _problems.no_such_page()
