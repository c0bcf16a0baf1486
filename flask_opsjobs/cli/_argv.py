"""Builds the command line that calls a command of the same app in another process."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from flask.cli import ScriptInfo


def again(ctx: click.Context, *words: str) -> list[str]:
    """The command line of `flask words…` for the app of this command. The environment is inherited."""
    info = ctx.ensure_object(ScriptInfo)
    if info.app_import_path is not None:
        return [*_flask(), "--app", info.app_import_path, *words]
    script = Path(sys.argv[0])
    if info.create_app is not None and script.stem not in ("flask", "__main__") and script.exists():
        # A host's own script, made with FlaskGroup(create_app=…).
        return [sys.executable, str(script), *words]
    # The app comes from FLASK_APP, or from an app.py that Flask finds by itself.
    return [*_flask(), *words]


def _flask() -> list[str]:
    return [sys.executable, "-m", "flask"]
