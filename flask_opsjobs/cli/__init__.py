"""Makes the command group `flask opsjobs`: one module per command, imported when the command is called."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from traceback import extract_tb, walk_tb
from typing import Any

import click
import psycopg
from flask import Flask, current_app
from flask.cli import AppGroup, NoAppException, ScriptInfo
from sqlalchemy.exc import DBAPIError, OperationalError
from typing_extensions import override

from ..core.db import is_away, say_cause, say_too_large
from ..core.reading import WHAT_HELPS, Reading, read_snapshot
from ..core.secret_patterns import clean_secrets
from ..core.visible_text import on_one_line
from ..errors import ConfigError, OpsJobsError
from ..host import Host, say_unjoined

# The format of everything that commands print as JSON. It grows when a key goes or changes its meaning; a new
# key does not change it.
JSON_FORMAT = 1


def current_host() -> Host:
    """The extension's `Host` of this command's app. Raises `ConfigError` when the app has not joined."""
    found: Host | None = current_app.extensions.get("opsjobs")
    if found is None:
        raise ConfigError(say_unjoined(current_app.name))
    return found


# What helps when the app does not start.
_WRITE_URL = (
    "Write the URL of the database as postgresql+psycopg://…, for psycopg 3, "
    "in SQLALCHEMY_DATABASE_URI or SQLALCHEMY_BINDS."
)
_NAME_APP = "Name your app with --app or FLASK_APP, as in `flask --app shop opsjobs install`."
# The module of SQLAlchemy that reads a URL and finds its driver.
_URL_FILE = ("sqlalchemy", "engine", "url.py")
# What helps, by a word in the error.
_HELPS = {
    "SQLALCHEMY_DATABASE_URI": "Set SQLALCHEMY_DATABASE_URI to postgresql+psycopg://….",
    "psycopg": "Run `pip install 'flask-opsjobs[binary]'`.",
    "opsjobs_": "`flask opsjobs install` writes this file: leave the lines about OpsJobs out until then.",
    "": "`flask routes` prints where it was raised.",
}


def load_app(context: click.Context) -> tuple[Flask | None, str]:
    """The app of this command; or None, why it does not start and what helps, without secrets."""
    try:
        return context.ensure_object(ScriptInfo).load_app(), ""
    except Exception as error:
        return None, _say_why_not(error)


def _say_why_not(error: BaseException) -> str:
    """Why the app does not start and what helps, without secrets."""
    if isinstance(error, OpsJobsError):  # it says what to do
        return clean_secrets(f"{_name(error)}.")
    says, helps = _name(error), None
    if isinstance(error, NoAppException):
        says, _, raised = error.format_message().partition("\n")
        if raised and error.__context__:  # an import in the app failed
            error = error.__context__
            says = f"{says} {_name(error)}"
        else:
            helps = _NAME_APP
    if _is_about_url(error):
        # What cannot be read of the URL may be a part of its password.
        says, helps = says if not isinstance(error, ValueError) else "ValueError", _WRITE_URL
    helps = helps or next(sentence for word, sentence in _HELPS.items() if word in says)
    return clean_secrets(f"{says.removesuffix('.')}. {helps}")


def _is_about_url(error: BaseException) -> bool:
    """Whether SQLAlchemy could not read a URL, or found no driver for it."""
    frames = extract_tb(error.__traceback__)
    if any(frame.name == "import_dbapi" for frame in frames):
        # psycopg 3 is the right driver, and is not installed, or finds no libpq.
        return getattr(error, "name", None) != "psycopg" and "pq wrapper" not in str(error)
    return any(Path(frame.filename).parts[-3:] == _URL_FILE for frame in frames)


def _is_of_start(error: BaseException) -> bool:
    """Whether it was raised while Flask loaded the app."""
    return any(
        frame.f_code is ScriptInfo.load_app.__code__ for frame, _ in walk_tb(error.__traceback__)
    )


def _name(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def require_app(context: click.Context) -> Flask:
    """The app of this command. When it does not start, raises one line that says why and what to do."""
    app, why_not = load_app(context)
    if app is None:
        again = f"Then run `flask opsjobs {context.info_name}` again."
        raise click.ClickException(plain(f"the app does not start: {why_not} {again}"))
    return app


def plain(*lines: str) -> str:
    """The lines joined, with each control character in a line written out, as `\\x1b` or `\\n`.

    So none of them acts on the terminal, and none begins a line of its own.
    """
    return "\n".join(map(on_one_line, lines))


def to_json(found: Mapping[str, Any], *, indent: int | None = None) -> str:
    """The object as JSON text, its format first. In ASCII, so that nothing in it acts on the terminal."""
    return json.dumps({"format": JSON_FORMAT, **found}, indent=indent)


def number_of(kind: str) -> Callable[[Any], int]:
    """A type of click: the number of a row of this kind, such as `operation`. Any other text is named."""

    def integer(value: Any) -> int:
        text = str(value)
        if too_large := say_too_large(kind, text):
            raise click.BadParameter(too_large)
        if re.fullmatch(r"0+", text):
            raise click.BadParameter(f"there is no {kind} {text[:40]}: an id is 1 or more")
        if not re.fullmatch(r"[0-9]+", text):
            raise click.BadParameter(f"{text[:40]!r} is no number: the {kind} 7 is written as 7")
        return int(text)

    return integer


class _NotAsked(click.ClickException):
    """The command could not start or could not continue; the message is one sentence that says why."""

    exit_code = 2


@contextmanager
def limited(host: Host, helps: str = WHAT_HELPS) -> Iterator[None]:
    """A block that reads as a page does. When a query takes too long, raises a sentence with what helps."""
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, psycopg.errors.QueryCanceled):
            raise
        seconds = host.settings.page_timeout_seconds
        raise _NotAsked(f"the query took longer than {seconds:g} s. {helps}") from error


@contextmanager
def open_snapshot(
    host: Host, settings: Mapping[str, str] | None = None, helps: str = WHAT_HELPS
) -> Iterator[Reading]:
    """A snapshot for a command, with the limit of pages. Raises `SchemaBehind`, and what `limited` raises."""
    host.require_schema()
    connection, seconds = host.engine.connect(), host.settings.page_timeout_seconds
    with limited(host, helps), read_snapshot(connection, seconds, settings) as read:
        yield read


class _CommandPerModule(AppGroup):
    """A group whose command `x` is the object `x` of the module `x` beside this file."""

    @override
    def invoke(self, ctx: click.Context) -> Any:
        """Call the command. An expected error becomes one sentence; only a bug of ours prints a traceback."""
        try:
            return super().invoke(ctx)
        except OpsJobsError as error:
            raise _NotAsked(str(error)) from error
        except (DBAPIError, psycopg.Error) as error:
            # A statement that waited too long counts too. An error about a value or a row is a bug of ours.
            if not (
                is_away(error) or isinstance(error, OperationalError | psycopg.OperationalError)
            ):
                raise
            raise _NotAsked(f"the database did not answer ({say_cause(error)})") from error
        except Exception as error:
            if not _is_of_start(error):
                raise
            why_not = plain(f"the app does not start: {_say_why_not(error)}")
            raise _NotAsked(f"{why_not} Then run this command again.") from error

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, in order."""
        return sorted(found.name for found in iter_modules(__path__) if found.name[0] != "_")

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command with this name; None when there is no such module."""
        if cmd_name not in self.list_commands(ctx):
            return None
        found: Any = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        assert isinstance(found, click.Command)
        return found


opsjobs = _CommandPerModule("opsjobs", help="Background jobs: their schema, workers and loops.")
