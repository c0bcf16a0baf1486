"""Serves our stylesheet and scripts."""

from __future__ import annotations

from pathlib import PurePath

from flask import Response, g

from ..._folders import folder
from . import files, problems


def asset(version: str, name: str) -> Response:
    """A file. Browsers cache its current version for a year, and ask again for any other version."""
    current = files.versions().get(name)
    if current is None:
        raise problems.no_such_page()
    response = Response((folder("static") / name).read_bytes())
    response.mimetype = files.TYPES[PurePath(name).suffix]
    is_current = version == current
    g.opsjobs_cache_control = "public, max-age=31536000, immutable" if is_current else "no-cache"
    return response
