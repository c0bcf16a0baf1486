"""Compares our schema in a database with the manifest: what the migration steps make, kept as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from .._folders import folder
from ..core import sql

# By kind, such as `column`, each object's definition by its name; and under `rights` those of the app's role.
Manifest = Mapping[str, Mapping[str, str]]


def manifest_path() -> Path:
    """Where the manifest is; `make manifest` writes it."""
    return folder("migrations") / "manifest.json"


@cache
def load_manifest() -> Manifest:
    """The manifest of the newest schema version."""
    found: Manifest = json.loads(manifest_path().read_text(encoding="utf-8"))
    return found


def read_objects(connection: Connection) -> dict[str, dict[str, str]]:
    """What the schema in a database consists of. The connection must have an empty `search_path`."""
    found: dict[str, dict[str, str]] = {}
    for kind, name, definition in connection.exec_driver_sql(sql.load("read_schema")):
        found.setdefault(kind, {})[name] = definition
    return found


def make_manifest(connection: Connection, role: str) -> dict[str, dict[str, str]]:
    """The manifest of a database whose schema was just made, with rights for `role`."""
    granted = connection.exec_driver_sql(sql.load("read_granted_rights"), {"role": role})
    rights = {right: "" for (right,) in granted}
    return {**read_objects(connection), "rights": rights}


def list_lacking_rights(connection: Connection) -> list[str]:
    """The rights of the manifest that the connection's role lacks, as GRANT writes them."""
    pairs = [each.split(" ", 1) for each in load_manifest()["rights"]]
    values: dict[str, Any] = {
        "names": [name for name, _ in pairs],
        "rights": [right for _, right in pairs],
    }
    found = connection.exec_driver_sql(sql.load("list_lacking_rights"), values)
    return [right for (right,) in found]
