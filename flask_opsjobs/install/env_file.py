"""Adds the lines to a host's env.py that exclude our tables from autogenerate, and checks that they work."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from alembic.runtime.environment import EnvironmentContext
from flask import current_app
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError

from ..core.db import SCHEMA
from ..errors import ConfigError, OpsJobsError
from . import autogenerate, steps
from .database import read_postgres_version
from .files import write_file
from .revisions import IS_VISIBLE, Revisions, has_binds, read_source, say_broken

LINES = """\
# The tables of flask_opsjobs have migrations of their own: autogenerate must leave them out.
from flask_opsjobs.install import autogenerate  # noqa: E402
autogenerate.leave_out()
"""
_AFTER = re.compile(r"^config = context\.config\s*$", re.M)


def path_of(found: Revisions) -> Path:
    """The path of the directory's env.py."""
    return found.directory / "env.py"


def has_lines(found: Revisions) -> bool:
    """Whether env.py excludes our tables, with our lines or with lines of its own."""
    source = read_source(path_of(found))
    return (
        "flask_opsjobs" in source and re.search(r"\b(leave_out|passing_by)\(", source) is not None
    )


def takes_lines(found: Revisions) -> bool:
    """Whether env.py is so similar to Flask-Migrate's that our lines would work in it."""
    source = read_source(path_of(found))
    return _AFTER.search(source) is not None and "configure_args" in source


def write_env_lines(found: Revisions) -> None:
    """Add our lines after the line that sets `config`; nothing else in the file changes."""
    path = path_of(found)
    source = read_source(path)
    place = _AFTER.search(source)
    assert place is not None
    before, after = source[: place.end()].rstrip("\r\n"), source[place.end() :].lstrip("\r\n")
    write_file(path, before + _block(source) + after)


def without_lines(source: str) -> str:
    """The text of an env.py without our lines, as it was before `write_env_lines`."""
    newline = find_newline(source)
    return source.replace(_block(source), newline * 2)


def find_newline(source: str) -> str:
    """How the lines of a file end."""
    return "\r\n" if "\r\n" in source else "\n"


def _block(source: str) -> str:
    """Our lines with an empty line on each side, in the newlines of this file."""
    return f"\n\n{LINES}\n".replace("\n", find_newline(source))


@dataclass(frozen=True)
class EnvDatabase:
    """A database as env.py opens it.

    It has the version of the server and of our schema, and why autogenerate would drop our tables.
    """

    postgres: int
    version: int
    would_drop: str | None


def open_env_databases(found: Revisions, bind: str | None) -> list[EnvDatabase]:
    """Run env.py against the database of `bind`, and migrate nothing. Raises the errors of connecting."""
    databases: list[EnvDatabase] = []
    # `note` is called once per database. In a directory for several, the token says which bind it is.
    token = f"{bind or ''}_upgrades" if has_binds(found) else None

    def note(_revision: Any, migration: Any) -> list[Any]:
        connection = migration.connection
        if token is None or migration.opts.get("upgrade_token") == token:
            databases.append(
                EnvDatabase(
                    read_postgres_version(connection),
                    steps.version(connection),
                    _danger(migration.opts, bool(connection.execute(IS_VISIBLE).scalar())),
                )
            )
        return []

    _run(found, current_app.extensions["sqlalchemy"].engines[bind], note)
    return databases


class _OpensDatabase(BaseException):
    """env.py has run up to where it opens the database. No `except Exception` in it catches this."""


def require_runs(found: Revisions, url: URL) -> None:
    """Run env.py up to where it opens the database. Raises `ConfigError` when it raises an error."""

    def stop() -> NoReturn:
        raise _OpensDatabase

    # An env.py that opens its database in a way of its own may find that it does not answer.
    with suppress(_OpensDatabase, SQLAlchemyError):
        _run(found, create_engine(url, creator=stop), lambda *_: [])


def _run(found: Revisions, engine: Engine, note: Callable[[Any, Any], list[Any]]) -> None:
    """Run env.py with `engine` in place of every bind. Raises `ConfigError` when it raises an error."""
    try:
        with (
            _quiet(),
            _every_bind_is(engine),
            EnvironmentContext(found.config, found.scripts, fn=note, dont_mutate=True),
        ):
            found.scripts.run_env()
    except (OpsJobsError, SQLAlchemyError):
        raise
    except Exception as error:
        said = say_broken(found.directory, error)
        if said is None:
            raise
        raise ConfigError(said) from error


def find_danger(found: Revisions, is_visible: bool) -> str | None:
    """Why autogenerate would drop our tables, as far as env.py and Flask-Migrate's arguments tell.

    `is_visible`: whether it finds them without their schema. Does not run env.py, which sets up logging anew:
    a web process asks too. None when it would not.
    """
    if has_lines(found):
        return None
    options = dict(current_app.extensions["migrate"].configure_args)
    source = read_source(path_of(found))
    if re.search(r"\binclude_schemas\s*=\s*True", source):
        options["include_schemas"] = True
    return _danger(options, is_visible)


@contextmanager
def _every_bind_is(engine: Engine) -> Iterator[None]:
    """In this block, env.py opens `engine` in place of every bind, so that no other database is opened."""
    engines = current_app.extensions["sqlalchemy"].engines
    before = dict(engines)
    engines.update(dict.fromkeys(before, engine))
    try:
        yield
    finally:
        engines.update(before)


def _danger(options: dict[str, Any], is_visible: bool) -> str | None:
    """Why autogenerate would treat our tables as the host's, and drop them; None when it would not."""
    include_name = options.get("include_name")
    if autogenerate.leaves_out(include_name):
        return None
    if is_visible:
        return f"search_path has {SCHEMA}"
    if options.get("include_schemas") and (
        include_name is None or include_name(SCHEMA, "schema", {"schema_name": SCHEMA})
    ):
        return "env.py says include_schemas=True"
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    # env.py configures logging, which disables all loggers that it does not name, and alembic then logs what
    # it is about to do. Flask-Migrate's env.py warns of what it calls itself.
    root, known = logging.root, logging.root.manager.loggerDict.values()
    handlers, level = root.handlers[:], root.level
    enabled = [one for one in known if isinstance(one, logging.Logger) and not one.disabled]
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        root.handlers[:] = handlers
        root.setLevel(level)
        for logger in enabled:
            logger.disabled = False
