"""The line in a host's env.py that keeps our tables out of its autogenerate, and whether it works."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.runtime.environment import EnvironmentContext
from flask import current_app
from sqlalchemy import Connection

from ..core.db import SCHEMA
from . import autogenerate, steps
from .revisions import Revisions, has_binds

LINES = """\
# The tables of flask_opsjobs have migrations of their own: autogenerate must leave them out.
from flask_opsjobs.install import autogenerate  # noqa: E402
autogenerate.leave_out()
"""
_AFTER = re.compile(r"^config = context\.config\s*$", re.M)

_VISIBLE = """
SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
               WHERE nspname = %s AND pg_table_is_visible(pg_class.oid))
    OR %s = ANY (SELECT trim(both ' "' FROM word)
                 FROM unnest(string_to_array(current_setting('search_path'), ',')) AS word)
"""


def path_of(found: Revisions) -> Path:
    """Where the directory's env.py is."""
    return found.directory / "env.py"


def has_lines(found: Revisions) -> bool:
    """Whether env.py calls us, in our words or in its own."""
    source = path_of(found).read_text(encoding="utf-8")
    return (
        "flask_opsjobs" in source and re.search(r"\b(leave_out|passing_by)\(", source) is not None
    )


def takes_lines(found: Revisions) -> bool:
    """Whether env.py is near enough to Flask-Migrate's that our lines would work in it."""
    source = path_of(found).read_text(encoding="utf-8")
    return _AFTER.search(source) is not None and "configure_args" in source


def write_env_lines(found: Revisions) -> None:
    """Put the lines after the one that names the config; nothing else of the file changes."""
    path = path_of(found)
    source = path.read_text(encoding="utf-8")
    place = _AFTER.search(source)
    assert place is not None
    before, after = source[: place.end()].rstrip("\n"), source[place.end() :].lstrip("\n")
    path.write_text(f"{before}\n\n{LINES}\n{after}", encoding="utf-8")


@dataclass(frozen=True)
class EnvDatabase:
    """The database of the jobs, as env.py opens it: its version of ours, and whether autogenerate is a danger."""

    version: int
    would_drop: str | None


def open_env_databases(found: Revisions, bind: str | None) -> list[EnvDatabase]:
    """Run env.py against the database of `bind` without migrating anything. Raises what connecting raises."""
    seen: list[EnvDatabase] = []
    # One call per database; the token tells which bind, in a directory for several.
    token = f"{bind or ''}_upgrades" if has_binds(found) else None

    def note(revision: Any, migration: Any) -> list[Any]:
        connection = migration.connection
        if token is None or migration.opts.get("upgrade_token") == token:
            seen.append(EnvDatabase(steps.version(connection), _danger(migration.opts, connection)))
        return []

    with (
        _quiet(),
        _every_bind_is(bind),
        EnvironmentContext(found.config, found.scripts, fn=note, dont_mutate=True),
    ):
        found.scripts.run_env()
    return seen


@contextmanager
def _every_bind_is(bind: str | None) -> Iterator[None]:
    """In this block env.py, which opens every bind, opens that one each time: the others are none of our business."""
    engines = current_app.extensions["sqlalchemy"].engines
    before = dict(engines)
    engines.update(dict.fromkeys(before, before[bind]))
    try:
        yield
    finally:
        engines.update(before)


def _danger(options: dict[str, Any], connection: Connection) -> str | None:
    """Why autogenerate would take our tables for the host's; None when it would not."""
    include_name = options.get("include_name")
    if autogenerate.leaves_out(include_name):
        return None
    if connection.exec_driver_sql(_VISIBLE, (SCHEMA, SCHEMA)).scalar():
        return f"search_path has {SCHEMA}"
    if options.get("include_schemas") and (
        include_name is None or include_name(SCHEMA, "schema", {"schema_name": SCHEMA})
    ):
        return "env.py says include_schemas=True"
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    # env.py sets up logging anew, and alembic then tells what it is about to do.
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
