"""Names and serves our stylesheet, script and icons, each at an address that changes with its content."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import PurePath

from flask import Response, g, url_for

from ..._folders import folder
from . import problems

_TYPES = {
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".js": "text/javascript",
    ".txt": "text/plain",
}


@cache
def versions() -> dict[str, str]:
    """Every file below `static`, with a hash of its content."""
    root = folder("static")
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:10]
        for path in sorted(root.rglob("*"))
        if path.suffix in _TYPES
    }


def file_url(name: str) -> str:
    """The address of a file. It contains the hash, so that browsers may cache it for a year."""
    return url_for("opsjobs.static", version=versions()[name], name=name)


def asset(version: str, name: str) -> Response:
    """A file. Browsers cache its current version for a year, and ask again for any other version."""
    current = versions().get(name)
    if current is None:
        raise problems.no_such_page()
    response = Response((folder("static") / name).read_bytes())
    response.mimetype = _TYPES[PurePath(name).suffix]
    is_current = version == current
    g.opsjobs_cache_control = "public, max-age=31536000, immutable" if is_current else "no-cache"
    return response
