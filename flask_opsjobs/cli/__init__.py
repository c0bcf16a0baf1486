"""`flask opsjobs …`: one module per command, imported when the command is asked for."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import click
import psycopg
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy.exc import DBAPIError, OperationalError

from ..core.db import is_away, say_cause
from ..errors import ConfigError, OpsJobsError
from ..host import Host


def current_host() -> Host:
    """What the extension knows of the app of this command. Raises `ConfigError` when the app has not joined it."""
    found: Host | None = current_app.extensions.get("opsjobs")
    if found is None:
        raise ConfigError(
            f"the app {current_app.name!r} has not joined OpsJobs: run `flask opsjobs install`, which prints the "
            "lines to add to the app"
        )
    return found


class _NotAsked(click.ClickException):
    """The command could not begin, or could not go on; one sentence says why."""

    exit_code = 2


class _CommandPerModule(AppGroup):
    """A group whose command `x` is the object `x` of the module `x` beside this file."""

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command. What is in its way is told in one sentence; only a fault of ours leaves a traceback."""
        try:
            return super().invoke(ctx)
        except OpsJobsError as error:
            raise _NotAsked(str(error)) from error
        except (DBAPIError, psycopg.Error) as error:
            # Also a statement that waited too long. What is about a value or a row is a fault of ours.
            if not (
                is_away(error) or isinstance(error, OperationalError | psycopg.OperationalError)
            ):
                raise
            raise _NotAsked(f"the database did not answer ({say_cause(error)})") from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, in order."""
        return sorted(found.name for found in iter_modules(__path__) if found.name[0] != "_")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None when there is no such module."""
        if cmd_name not in self.list_commands(ctx):
            return None
        found: Any = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        assert isinstance(found, click.Command)
        return found


opsjobs = _CommandPerModule("opsjobs", help="Background jobs: their schema, workers and loops.")
