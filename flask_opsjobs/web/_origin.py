"""Whether a write came from one of our own pages."""

from __future__ import annotations

from flask import request

from . import _problems


def check() -> None:
    """Let a same-origin write pass; raise the 403 `Problem` for any other.

    Browsers say it in `Sec-Fetch-Site`, older ones in `Origin`. A write that says neither is refused.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    is_ours = site == "same-origin" if site else origin == request.host_url.rstrip("/")
    if not is_ours:
        raise _problems.cross_site()
