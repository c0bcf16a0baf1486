"""Names the files that a page loads, each at an address that changes with its content."""

from __future__ import annotations

import hashlib
from functools import cache

from flask import url_for

from ..._folders import folder

TYPES = {
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
        if path.suffix in TYPES
    }


def url(name: str) -> str:
    """The address of a file. It contains the hash, so that browsers may cache it for a year."""
    return url_for("opsjobs.static", version=versions()[name], name=name)
