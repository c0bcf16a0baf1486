"""Checks that a write comes from one of our own pages, and that no other site's page requests a file."""

from __future__ import annotations

from flask import request

from . import problems as _problems


def require_same_origin() -> None:
    """Let a same-origin write pass; raise the 403 `Problem` for any other.

    Browsers say it in `Sec-Fetch-Site`, older ones in `Origin`. A write that says neither is refused.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    is_ours = site == "same-origin" if site else origin == request.host_url.rstrip("/")
    if not is_ours:
        raise _problems.cross_site()


def check_file() -> None:
    """Let an export pass unless the browser says that another site's page asks for it; then raise the 403 `Problem`.

    An export reads all that fits: a page of any site could have a visitor of its own ask for that, again and again.
    """
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise _problems.cross_site_file()
