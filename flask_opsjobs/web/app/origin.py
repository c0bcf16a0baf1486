"""Refuses writes that do not come from our own pages, and exports that another site's page requests."""

from __future__ import annotations

from flask import request

from . import problems


def require_same_origin() -> None:
    """Return for a same-origin write; raise the 403 `Problem` for any other.

    Browsers send `Sec-Fetch-Site`, older ones `Origin`. A write with neither is refused.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    is_ours = site == "same-origin" if site else origin == request.host_url.rstrip("/")
    if not is_ours:
        raise problems.cross_site()


def check_file() -> None:
    """Raise the 403 `Problem` when the browser says that another site's page requests the export.

    An export is expensive: a page of any site could make its visitors request it again and again.
    """
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise problems.cross_site_file()
