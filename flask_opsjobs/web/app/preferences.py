"""Reads and stores a person's preferences in cookies: theme, time zone and refresh interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flask import request
from werkzeug import Response

from . import problems

# The first of each is the default.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "refresh": ("5", "off", "2", "15", "30"),
    "zone": ("UTC", "local"),
    "theme": ("system", "light", "dark"),
}
_YEAR = 365 * 86400


@dataclass(frozen=True)
class Preferences:
    """Each value is one of `CHOICES`; `refresh` is in seconds, or `off`."""

    refresh: str
    zone: str
    theme: str


def read_preferences() -> Preferences:
    """The preferences of the current request; the default for a missing or unknown value."""
    found = {name: request.cookies.get(f"opsjobs_{name}", "") for name in CHOICES}
    return Preferences(
        **{
            name: found[name] if found[name] in CHOICES[name] else CHOICES[name][0]
            for name in CHOICES
        }
    )


def keep_preferences(response: Response, path: str) -> None:
    """Set a cookie for each preference in the current form.

    Raises the 422 `Problem` for a value that is not a choice.
    """
    for name, choices in CHOICES.items():
        value = request.form.get(name)
        if value is None:
            continue
        if value not in choices:
            raise problems.unreadable(f"{name}: {value[:40]!r} is not one of {', '.join(choices)}")
        response.set_cookie(
            f"opsjobs_{name}",
            value,
            max_age=_YEAR,
            path=path,
            httponly=True,
            samesite="Lax",
            secure=request.is_secure,
        )
