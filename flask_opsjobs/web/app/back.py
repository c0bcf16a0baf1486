"""Finds the way between our pages and the host's: where a form's answer leads back to, and where to sign in."""

from __future__ import annotations

from urllib.parse import SplitResult, quote, urlsplit

from flask import request, url_for

from .host import host


def root() -> str:
    """The path below which all of our pages are, with whatever a proxy put before it."""
    return url_for("opsjobs.overview")


def here() -> str:
    """The address of the page that is asked for, with its query string and with whatever a proxy put before it."""
    return _below_host(urlsplit(request.url))


def read_back() -> str:
    """The page that the request's field `back` names, or else the one it was sent from.

    Only ever a page of ours: neither another site's nor another one of the host's. Else the first page.
    """
    said = request.values.get("back") or _referrer()
    return said if _is_ours(said) else root()


def _referrer() -> str:
    found = urlsplit(request.referrer or "")
    if f"{found.scheme}://{found.netloc}/" != request.host_url:
        return ""
    return _below_host(found)


def _below_host(url: SplitResult) -> str:
    return url.path + (f"?{url.query}" if url.query else "")


def _is_ours(back: str) -> bool:
    is_below = back == root() or back.startswith((f"{root()}/", f"{root()}?"))
    # A browser would climb out of our pages by dot segments.
    path = back.partition("?")[0].replace("%2e", ".").replace("%2E", ".")
    return back.isprintable() and is_below and ".." not in path


def sign_in() -> str | None:
    """Where the host lets people sign in, and from where it may lead back to the page that was asked for.

    None when the host has not said. A form that was sent leads back to the page that it was sent from.
    """
    address = of_the_host(host().settings.sign_in_url)
    if address is None:
        return None
    back = here() if request.method in ("GET", "HEAD") else read_back()
    return f"{address}{'&' if '?' in address else '?'}next={quote(back, safe='/')}"


def of_the_host(address: str | None) -> str | None:
    """An address that a setting names, as a link: a path is one of the host's, below its mount."""
    if address is None or not address.startswith("/"):
        return address
    return request.script_root + address
