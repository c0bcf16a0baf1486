"""Adds a note to a subject: `flask opsjobs note job/42 "…"`."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import with_appcontext

from . import _operate


@click.command(
    "note",
    short_help="Add a note to a job, workflow, incident, failure or worker.",
    help="Add the note TEXT to SUBJECT: job/42, workflow/7, incident/7, failure/7 or worker/NAME. It stays "
    "in the audit for ever, with your name, and shows on the page of its subject and in forensics.\n"
    f"{_operate.EXITS}",
)
@click.argument("subject")
@click.argument("text")
@_operate.options_without_reason
@with_appcontext
def note(subject: str, text: str, **options: Any) -> None:
    """Add a note, or print what would be added."""
    _operate.run_action("note.add", [subject], reason=text, **options)
