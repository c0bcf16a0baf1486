"""Reads the versions of the packages that matter, of Python, and of the schema that this code needs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

from .db import SCHEMA_VERSION

_PACKAGES = ("flask-opsjobs", "rq", "flask", "sqlalchemy", "psycopg")


@cache  # each is parsed out of a file, and stays the same in a process
def read_versions() -> Mapping[str, str]:
    """Each version by its name, as the help page and the doctor show them."""
    found = {name: version(name) for name in _PACKAGES}
    return found | {"python": platform.python_version(), "schema": str(SCHEMA_VERSION)}
