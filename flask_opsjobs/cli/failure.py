"""Resolves or ignores failures: `flask opsjobs failure …`."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from . import _operate, number_of

failure = AppGroup("failure", help="Resolve failures in a deploy, or ignore them for a while.")
_ids = click.argument("ids", nargs=-1, required=True, type=number_of("failure"))


@failure.command(
    "resolve",
    short_help="Resolve failures in a deploy.",
    help="Resolve the failures with these IDS: in the `next` deploy, in `this` one, or in the newest deploy "
    f"of a version.\n{_operate.EXITS}",
)
@_ids
@click.option("--in", "deploy", default="next", help="next, this or a version; next by default.")
@_operate.options
def resolve(ids: tuple[int, ...], deploy: str, **options: Any) -> None:
    """Resolve failures."""
    targets = [f"failure/{id}" for id in ids]
    _operate.run_action("failure.resolve", targets, params={"deploy": deploy}, **options)


@failure.command(
    "ignore",
    short_help="Ignore failures for a while.",
    help="Ignore the failures with these IDS: for a span or until a time, until so many more attempts have "
    f"failed, or until more than so many fail in an hour. Give one of the three.\n{_operate.EXITS}",
)
@_ids
@click.option("--until", help=_operate.UNTIL)
@click.option("--more", help="So many further failures.")
@click.option("--rate", help="More failures an hour than this.")
@_operate.options
def ignore(
    ids: tuple[int, ...], until: str | None, more: str | None, rate: str | None, **options: Any
) -> None:
    """Ignore failures."""
    targets = [f"failure/{id}" for id in ids]
    params = {"until": until, "more": more, "rate": rate}
    _operate.run_action("failure.ignore", targets, params=params, **options)
