"""Reads which of our schema steps a host's Flask-Migrate revisions call, and writes a new revision."""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from alembic import util
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import CycleDetected
from flask import Flask
from sqlalchemy import (
    ColumnElement,
    Executable,
    Result,
    column,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.orm import Session

from ..core.db import SCHEMA
from ..core.reading import execute_with
from ..core.round_trips import start_reading
from ..errors import ConfigError
from . import steps

# The call in a revision: `steps.upgrade(op, since=0, to=1)`.
_CALL = re.compile(r"\.upgrade\(\s*op\s*,\s*(?:since\s*=\s*\d+\s*,\s*)?(?:to\s*=\s*)?(\d+)")

_AGAIN = "then run this command again"

# One object for all calls: `execute_with` keeps the statements that it makes of it.
_DEFAULT_PATH: ColumnElement[str] = literal_column(
    "(SELECT reset_val FROM pg_settings WHERE name = 'search_path')"
)
_TABLE = text(
    "SELECT nspname, relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
    " WHERE relname = :name AND has_table_privilege(pg_class.oid, 'SELECT')"
    " AND has_schema_privilege(n.oid, 'USAGE') AND CASE WHEN CAST(:schema AS text) IS NULL"
    " THEN pg_table_is_visible(pg_class.oid) ELSE nspname = :schema END"
)
# Whether alembic finds our tables without their schema.
IS_VISIBLE = text(
    "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
    " WHERE nspname = :ours AND pg_table_is_visible(pg_class.oid))"
    """ OR :ours = ANY (SELECT trim(both ' "' FROM word)"""
    " FROM unnest(string_to_array(current_setting('search_path'), ',')) AS word)"
).bindparams(ours=SCHEMA)


@dataclass(frozen=True)
class Revisions:
    """The host's directory with its heads; `reaches` is our newest schema version that a revision goes to."""

    directory: Path
    scripts: ScriptDirectory
    config: Config
    heads: tuple[str, ...]
    reaches: int

    @property
    def is_behind(self) -> bool:
        """Whether no revision goes to the newest schema version of this release of the library."""
        return self.reaches < steps.latest()

    @property
    def upgrade_command(self) -> str:
        """The command that upgrades the database: with several heads alembic needs `heads`."""
        return "flask db upgrade heads" if len(self.heads) > 1 else "flask db upgrade"


def find_revisions(app: Flask) -> Revisions:
    """Read the app's directory. Raises `ConfigError` when it is missing, or a revision cannot be read."""
    if "migrate" not in app.extensions:
        raise ConfigError(
            f"this app has no Flask-Migrate: add `Migrate(app, db)`, run `flask db init`, {_AGAIN}"
        )
    setup = app.extensions["migrate"]
    directory = Path(setup.directory)
    env_py = directory / "env.py"
    if not env_py.is_file():
        raise ConfigError(
            f"there is no Flask-Migrate directory at {directory.absolute()}: go to the folder that has it, "
            f"or make it with `flask db init`, {_AGAIN}"
        )
    config = setup.migrate.get_config()
    config.cmd_opts.quiet = True  # the installer prints what it writes
    scripts = ScriptDirectory.from_config(config)
    try:
        compile(read_source(env_py), str(env_py), "exec", dont_inherit=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Revision .* is not present")
            heads = tuple(scripts.get_heads())
    except CycleDetected as error:
        raise ConfigError(_say_circle(directory, error)) from error
    except Exception as error:
        said = say_broken(directory, error)
        if said is None and isinstance(error, KeyError):
            said = _say_missing_parent(directory, str(error.args[0]))
        if said is None:
            raise
        raise ConfigError(said) from error
    return Revisions(directory, scripts, config, heads, _reached(scripts))


def read_source(path: Path) -> str:
    """The text of a Python file with its own newlines. Raises `ConfigError` when it is not UTF-8."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8: save it as UTF-8, without a `coding` line, {_AGAIN}"
        ) from error


def _say_missing_parent(directory: Path, parent: str) -> str | None:
    """What is said when a revision follows one whose file is missing; None when none follows `parent`."""
    names = re.compile(
        rf"""^(?:down_revision|depends_on)\b[^=]*=[^=]*['"]{re.escape(parent)}['"]""", re.M
    )
    for path in directory.rglob("*.py"):
        if names.search(read_source(path)):
            return (
                f"{path} follows revision {parent!r}, whose file is missing: bring the file back, "
                f"or name another revision, {_AGAIN}"
            )
    return None


def _say_circle(directory: Path, found: CycleDetected) -> str:
    """What is said when revisions follow one another in a circle."""
    own = re.compile(r"""^revision\b[^=]*=[^'"]*['"]([^'"]+)""", re.M)
    follows = re.compile(r"^(?:down_revision|depends_on)\b[^=]*=(.*)", re.M)
    paths, parents = {}, {}
    for path in directory.rglob("*.py"):
        source = read_source(path)
        if name := own.search(source):
            paths[name[1]] = path
            parents[name[1]] = re.findall(r"""['"]([^'"]+)""", " ".join(follows.findall(source)))
    try:
        TopologicalSorter(parents).prepare()
        circle = found.revisions
    except CycleError as error:
        circle = error.args[1][1:]
    files = " and ".join(sorted(str(paths.get(name, name)) for name in circle))
    return (
        "revisions follow one another in a circle: correct down_revision or depends_on in "
        f"{files}, {_AGAIN}"
    )


def say_broken(directory: Path, error: Exception) -> str | None:
    """What is said of an error that env.py or a revision raises when it is imported; None of another error.

    Raises `ConfigError` when the file is not UTF-8.
    """
    if isinstance(error, SyntaxError):
        read_source(Path(error.filename or ""))
        return f"{error.filename}, line {error.lineno}, is not Python: {error.msg}: correct it, {_AGAIN}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.absolute().is_relative_to(directory.absolute()):
            cause = str(error).strip().partition("\n")[0]
            return (
                f"{path}, line {frame.lineno}, cannot be imported: {type(error).__name__}: {cause}: "
                f"correct it, or install what it imports, {_AGAIN}"
            )
    return None


@dataclass(frozen=True)
class AppliedRevisions:
    """What a database tells of migrations: the heads that it has, and whether our schema is searched."""

    heads: tuple[str, ...]
    is_visible: bool


def read_applied(session: Session, app: Flask) -> AppliedRevisions:
    """Read it as Flask-Migrate and alembic would, whatever the session looks in.

    Without heads when the app has no Flask-Migrate, or may not read the table of revisions.
    """
    migrate = app.extensions.get("migrate")
    options = migrate.configure_args if migrate else {}
    names = {
        "name": options.get("version_table", "alembic_version"),
        "schema": options.get("version_table_schema"),
    }
    seeing = start_reading(session, _execute_by_default, IS_VISIBLE)
    found = _execute_by_default(session, _TABLE.bindparams(**names)).one_or_none()
    heads: Iterable[str] = ()
    if found is not None:
        versions = table(found[1], column("version_num"), schema=found[0])
        heads = session.scalars(select(versions))
    return AppliedRevisions(tuple(heads), bool(seeing.value.scalar()))


def _execute_by_default(session: Session, statement: Executable) -> Result[*tuple[Any, ...]]:
    return execute_with(session, statement, search_path=_DEFAULT_PATH)


def list_unapplied(found: Revisions, heads: tuple[str, ...]) -> list[str] | None:
    """The revisions that a database with these heads does not have yet, the oldest first.

    None when there are no heads, or one that the directory does not know.
    """
    try:
        left = list(found.scripts.iterate_revisions("heads", heads)) if heads else None
    except util.CommandError:
        return None
    return None if left is None else [script.revision for script in reversed(left)]


def _reached(scripts: ScriptDirectory) -> int:
    return max([0, *(_reach(Path(script.path)) for script in scripts.walk_revisions())])


def _reach(path: Path) -> int:
    """The schema version to which a revision goes; 0 when it calls none of our steps."""
    source = read_source(path)
    calls = _CALL.findall(source) if "flask_opsjobs" in source else []
    return max([0, *map(int, calls)])


def choose_last_head(found: Revisions, wanted: str | None) -> str | None:
    """The head after our steps, which a revision that drops our schema follows; else as `choose_head`."""

    def has_steps(head: str) -> bool:
        before = found.scripts.iterate_revisions(head, "base")
        return any(_reach(Path(script.path)) for script in before)

    after = [head for head in found.heads if has_steps(head)]
    if wanted is None and len(after) == 1:
        return after[0]
    return choose_head(found, wanted, "uninstall")


def choose_head(found: Revisions, wanted: str | None, command: str = "install") -> str | None:
    """The head that the new revision follows; None in a directory without revisions.

    `wanted` is a head or the label of a branch. Raises `ConfigError` when it is neither, or when there are
    several heads and `wanted` is None.
    """
    if wanted is None and len(found.heads) <= 1:
        return found.heads[0] if found.heads else None
    heads = ", ".join(_name(found, head) for head in found.heads) or "none"
    if wanted is None:
        label = next(iter(_labels(found, found.heads[0])), found.heads[0])
        raise ConfigError(
            f"{found.directory} has {len(found.heads)} heads: {heads}. If they are branches on purpose, "
            "choose the head that the new revision follows, such as "
            f"`flask opsjobs {command} --head {label}`. If not, join them with `flask db merge heads`, "
            f"then run `flask opsjobs {command}` again"
        )
    try:
        chosen = found.scripts.get_revision(f"{wanted}@head")
    except util.CommandError:
        chosen = None
    if chosen is None:
        fix = "name one of them with --head" if found.heads else "leave --head out"
        raise ConfigError(
            f"{found.directory} has no head {wanted!r}, and no branch of that label with one head; "
            f"its heads are: {heads}: {fix}, {_AGAIN}"
        )
    return chosen.revision


def _name(found: Revisions, head: str) -> str:
    labels = _labels(found, head)
    return f"{head} ({', '.join(labels)})" if labels else head


def _labels(found: Revisions, head: str) -> list[str]:
    return sorted(found.scripts.get_revision(head).branch_labels)


def revision_lines(found: Revisions) -> tuple[str, str, str]:
    """The import, the upgrade and the downgrade lines of the missing revision."""
    since, to = found.reaches, steps.latest()
    return (
        "from flask_opsjobs.install import steps",
        f"steps.upgrade(op, since={since}, to={to})",
        f"steps.downgrade(op, since={to}, to={since})",
    )


def write_revision(found: Revisions, bind: str | None, head: str | None) -> Path:
    """Write the missing revision after `head`, and return its path. Raises as `_write_lines` does."""
    return _write_lines(
        found, bind, head, f"opsjobs schema {steps.latest()}", revision_lines(found)
    )


def write_drop(found: Revisions, bind: str | None, head: str | None) -> Path:
    """Write a revision that drops our schema without this package, as `write_revision` writes another."""
    drop = f'op.execute("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")'
    return _write_lines(found, bind, head, "remove opsjobs", ("", drop, "pass"))


def _write_lines(
    found: Revisions, bind: str | None, head: str | None, title: str, lines: tuple[str, str, str]
) -> Path:
    """Write a revision with these imports, upgrade and downgrade, from the host's own template.

    With a template for several databases the calls go into the functions of `bind`. When the template
    leaves them out, removes the file again and raises `ConfigError`.
    """
    imports, upgrade, downgrade = lines
    prefix = f"{bind or ''}_" if has_binds(found) else ""
    words: dict[str, Any] = {f"{prefix}upgrades": upgrade, f"{prefix}downgrades": downgrade}
    revision = util.rev_id()
    try:
        script = found.scripts.generate_revision(revision, title, head, imports=imports, **words)
    except OSError:
        # Else a part of it, as on a full disk, would count as the revision.
        for part in found.directory.rglob(f"*{revision}*"):
            part.unlink()
        raise
    assert script is not None
    path = Path(script.path)
    source = path.read_text(encoding="utf-8")
    if not all(line in source for line in lines):
        path.unlink()
        raise ConfigError(
            f"{found.directory / 'script.py.mako'} leaves out imports, upgrades or downgrades: "
            "write the revision yourself with `flask db revision` and these lines: "
            + "; ".join(filter(None, lines))
        )
    return path


def has_binds(found: Revisions) -> bool:
    """Whether the directory was made for several databases (`flask db init --multidb`)."""
    return "engine_name" in (found.directory / "script.py.mako").read_text(encoding="utf-8")
