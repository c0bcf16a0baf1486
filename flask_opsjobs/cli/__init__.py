"""`flask opsjobs …`: one module per command, imported when the command is asked for."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import click
from flask.cli import AppGroup


class _CommandPerModule(AppGroup):
    """A group whose command `x` is the object `x` of the module `x` beside this file."""

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
