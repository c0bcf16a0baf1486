"""Plans what the installer has to do: which pieces a host has, which are missing, how to write them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from ..errors import ConfigError
from ..host import say_unjoined
from . import env_file, revisions, steps
from .database import find_database, say_too_old
from .files import write_file
from .starters import CHANGES, find_number, opsjobs_access, opsjobs_display, opsjobs_escalation


@dataclass(frozen=True)
class Piece:
    """One file, or a part of a file. `missing` says what is missing; None when nothing is.

    `there` says what exists, or what is left unchanged. `write` writes the missing piece and returns a
    sentence about it; None when only a person can do that.
    """

    there: str
    missing: str | None = None
    write: Callable[[], str] | None = None


def pieces(app: Flask, head: str | None = None, *, escalation: bool = False) -> list[Piece]:
    """The pieces of this app, in the order in which they are written; a new revision follows `head`.

    `escalation` asks for the starter of the escalation policy too, also of a host that has joined.

    Raises `ConfigError` when the library cannot be installed into the app: another database, no
    Flask-Migrate directory, an env.py that raises an error, several heads and none chosen.
    """
    _, engine = find_database(app, app.config.get("OPSJOBS_BIND"))
    found = revisions.find_revisions(app)
    env_file.require_runs(found, engine.url)
    made = [_revision(found, app.config.get("OPSJOBS_BIND"), head), _env(found)]
    if "opsjobs" not in app.extensions:
        # A host that has joined already has its policies, in whatever files.
        made += [_starter(app, opsjobs_access), _starter(app, opsjobs_display)]
    if escalation:
        made.append(_starter(app, opsjobs_escalation))
    return made


def _revision(found: revisions.Revisions, bind: str | None, wanted: str | None) -> Piece:
    if not found.is_behind:
        return Piece(
            f"{shown(found.directory)}: its revisions reach opsjobs schema {found.reaches}"
        )
    if bind is not None and not revisions.has_binds(found):
        raise ConfigError(
            f"OPSJOBS_BIND = {bind!r}, and {found.directory} migrates the default database only: "
            "make one for several databases with `flask db init --multidb`"
        )
    head = revisions.choose_head(found, wanted)
    reached = f"only reach opsjobs schema {found.reaches}" if found.reaches else "call none"
    after = f"after {head}" if head else "as the first"

    def write() -> str:
        return f"{shown(revisions.write_revision(found, bind, head))}: a revision that runs the schema steps"

    return Piece(
        there="",
        missing=f"{shown(found.directory)}: its revisions {reached}; a new one, {after}, must go to "
        f"{steps.latest()}:\n    " + "\n    ".join(revisions.revision_lines(found)),
        write=write,
    )


def _env(found: revisions.Revisions) -> Piece:
    path = shown(env_file.path_of(found))
    if env_file.has_lines(found):
        return Piece(f"{path}: leaves the tables of opsjobs out of `flask db migrate`")
    missing = f"{path}: lines that leave the tables of opsjobs out of `flask db migrate`"
    if not env_file.takes_lines(found):
        # `--check` runs env.py, and finds out whether our tables are in danger.
        return Piece(
            f"{path}: left alone, it is not as Flask-Migrate wrote it. If it says "
            "include_schemas=True, pass include_name=autogenerate.passing_by() "
            "to context.configure (from flask_opsjobs.install import autogenerate)"
        )

    def write() -> str:
        env_file.write_env_lines(found)
        return missing

    return Piece(there="", missing=missing, write=write)


def _starter(app: Flask, module: ModuleType) -> Piece:
    path = Path(app.root_path) / f"{module.__name__.rpartition('.')[2]}.py"
    source = inspect.getsource(module)
    if path.is_dir():
        raise ConfigError(
            f"{shown(path)} is a folder, and the installer writes a file of this name: move the folder away, "
            "then run `flask opsjobs install` again"
        )
    if path.exists():
        is_ours = path.read_bytes() == source.encode()
        return Piece(f"{shown(path)}: {'as written' if is_ours else 'yours, left alone'}")
    what = (module.__doc__ or "").partition(".")[0]

    def write() -> str:
        write_file(path, source)
        return f"{shown(path)}: {what}"

    return Piece(there="", missing=f"{shown(path)}: {what}", write=write)


def list_starter_changes(app: Flask) -> list[str]:
    """What has changed in each starter since the app's copy of it was written, a sentence for each copy.

    A copy is known by its first lines, which name the number of its starter. It is never edited.
    """
    said = []
    for name, changes in CHANGES.items():
        path = Path(app.root_path) / f"{name}.py"
        source = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        written = find_number(source)
        news = [text for number, text in changes.items() if written and number > written]
        if news:
            said.append(
                f"{shown(path)} is left alone. Since it was written, its starter has changed: "
                f"{'; '.join(news)}. Take over what you want, "
                f"then write `starter {max(changes)}` into its first lines."
            )
    return said


def due(app: Flask) -> list[str]:
    """What only `--check` checks: has the app joined, is its database up to date, is autogenerate safe.

    Returns a sentence for each check that fails. The doctor says the same sentences.
    """
    unjoined = find_unjoined(app)
    wrong = [unjoined] if unjoined else []
    found = revisions.find_revisions(app)
    try:
        databases = env_file.open_env_databases(found, app.config.get("OPSJOBS_BIND"))
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return [*wrong, f"the database does not answer, so its schema is unknown: {cause}"]
    for each in databases:
        said = (
            say_too_old(each.postgres),
            say_due(each.version, found.upgrade_command),
            say_ahead(each.version),
            say_would_drop(found, each.would_drop) if each.would_drop else None,
        )
        wrong += [sentence for sentence in said if sentence]
    return wrong


def find_unjoined(app: Flask) -> str | None:
    """What is said of an app that has not joined OpsJobs; None of one that has."""
    return None if "opsjobs" in app.extensions else say_unjoined(app.name)


def say_due(version: int, upgrade_command: str) -> str | None:
    """What is said of a database whose schema is behind this release; None when it is not."""
    if version >= steps.latest():
        return None
    return f"the database has opsjobs schema {version}, {steps.latest()} is due: run `{upgrade_command}`"


def say_ahead(version: int) -> str | None:
    """What is said of a database whose schema is ahead of this release; None when it is not."""
    if version <= steps.latest():
        return None
    return (
        f"the database has opsjobs schema {version}, and this release of flask_opsjobs knows "
        f"up to {steps.latest()}: install the release that the database was upgraded with, or a "
        "newer one"
    )


def say_would_drop(found: revisions.Revisions, why: str) -> str:
    """What is said when autogenerate would treat our tables as the host's."""
    return (
        f"`flask db migrate` would drop the tables of opsjobs, since {why}: "
        f"let {shown(env_file.path_of(found))} leave them out"
    )


def upgrade_command(app: Flask) -> str:
    """The command that upgrades the database."""
    return revisions.find_revisions(app).upgrade_command


def escalation_lines(app: Flask) -> tuple[str, list[str]]:
    """The path of the app's file, and the lines in it that give the escalation policy."""
    place, dot = _find_file(app)
    lines = [
        f"from {dot}opsjobs_escalation import HostEscalation",
        "",
        "opsjobs = OpsJobs(…, escalation=HostEscalation())",
    ]
    return place, lines


def lines_to_add(app: Flask) -> list[tuple[str, list[str]]]:
    """The lines that join OpsJobs, each group with its place; of a factory those about `app` go into it."""
    place, dot = _find_file(app)
    above = [
        "from flask_opsjobs import OpsJobs",
        f"from {dot}opsjobs_access import HostAccess",
        f"from {dot}opsjobs_display import HostDisplay",
        "",
    ]
    make = "python -c 'import secrets; print(secrets.token_hex())'"
    key = f'app.config["SECRET_KEY"] = "…"  # unique locks are signed with it: {make}'
    keys = [] if app.secret_key else [key]
    opsjobs = "opsjobs = OpsJobs(access=HostAccess(), display=HostDisplay())"
    join = "opsjobs.init_app(app)"
    if getattr(sys.modules.get(app.import_name), "app", None) is app:
        return [(place, [*above, *keys, opsjobs, f"{join}  # after SQLAlchemy(app)"])]
    return [
        (f"the top of {place}, after its imports", [*above, opsjobs]),
        (f"{place}, right after `db.init_app(app)`", [*keys, join]),
    ]


def _find_file(app: Flask) -> tuple[str, str]:
    """The app's file as it is shown, and the dot with which it imports from its own package, if any."""
    module = sys.modules.get(app.import_name)
    path = getattr(module, "__file__", None)
    place = shown(Path(path)) if path else "the file that makes the app"
    return place, "." if getattr(module, "__package__", None) else ""


def shown(path: Path) -> str:
    """A path relative to the current folder, when it is below it."""
    absolute = path.absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
