"""Sends a signal, as `opsjobs.signal` does: `flask opsjobs signal NAME`."""

from __future__ import annotations

import json
from typing import Any

import click
from flask.cli import with_appcontext

from ..errors import InvalidSignal
from ..workflows.send_signal import Signal, Signaled, send_signal
from . import current_host, number_of, plain, to_json


@click.command("signal", short_help="Send a signal to the wait of a workflow.")
@click.argument("name")
@click.option("--key", default="", help="The key that the wait was given; empty by default.")
@click.option("--payload", default="null", help="The result of the wait, as JSON; null by default.")
@click.option("--dedupe", help="An id of this signal: the same signal again is only counted.")
@click.option(
    "--run", type=number_of("workflow"), help="The only workflow that it is for, by its id."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_appcontext
def signal(
    name: str, key: str, payload: str, dedupe: str | None, run: int | None, *, as_json: bool
) -> None:
    """Send the signal NAME. It ends the open wait with this name and key, or is kept for the first such wait.

    Exits with 0 when it is stored, also when it was sent before; 2 when it cannot be sent.
    """
    host = current_host()
    host.require_schema()
    sent = send_signal(host, Signal(name, key, _parse(payload), dedupe, run, by="the command line"))
    host.session().commit()
    if as_json:
        click.echo(to_json({"id": sent.id, "conflict": sent.conflict}))
    else:
        click.echo(plain(_say(name, sent)))


def _parse(payload: str) -> Any:
    try:
        return json.loads(payload)
    except RecursionError:
        raise InvalidSignal(
            "the signal cannot be sent: payload is nested too deep, and could not be read back"
        ) from None
    except ValueError as why:
        raise InvalidSignal(
            f'the signal cannot be sent: payload is JSON such as {{"amount": 990}} or "a text": {why}'
        ) from None


def _say(name: str, sent: Signaled) -> str:
    if sent.conflict:
        return f"signal {sent.id} {name}: sent before with this --dedupe, now counted once more"
    return f"signal {sent.id} {name}: stored"
