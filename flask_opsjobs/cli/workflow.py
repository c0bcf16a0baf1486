"""Cancels or retries workflows, skips a step, signals a wait: `flask opsjobs workflow …`."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ..actions.domain import Action
from ..actions.registry import ACTIONS
from . import _operate, number_of

workflow = AppGroup("workflow", help="Cancel or retry workflows, skip steps, or signal waits.")
_SKIP, _SIGNAL = ACTIONS["workflow.skip"], ACTIONS["workflow.signal"]
_GIVE = ACTIONS["workflow.give_signal"]
_ID = click.argument("id_", metavar="ID", type=number_of("workflow"))


def _add(action: Action[Any]) -> None:
    @workflow.command(
        action.short_name,
        short_help=f"{action.title} workflows.",
        help=f"{action.title} the workflows with these IDS, at most 100. {action.risk}\n{_operate.EXITS}",
    )
    @click.argument("ids", nargs=-1, required=True, type=number_of("workflow"))
    @_operate.options
    def command(ids: tuple[int, ...], **options: Any) -> None:
        _operate.run_action(action.name, [f"workflow/{id}" for id in ids], **options)


for _short_name in ("cancel", "retry"):
    _add(ACTIONS[f"workflow.{_short_name}"])


@workflow.command(
    "skip",
    short_help="Give a step its result instead of running it.",
    help=f"Skip a step of the workflow ID. {_SKIP.risk}\n{_operate.EXITS}",
)
@_ID
@click.option("--step", required=True, help="The name of the step.")
@click.option("--result", default="", help="The result as JSON; null by default.")
@_operate.options
def skip(id_: int, step: str, result: str, **options: Any) -> None:
    """Skip one step."""
    params = {"step": step, "result": result}
    _operate.run_action(_SKIP.name, [f"workflow/{id_}"], params=params, **options)


@workflow.command(
    "signal",
    short_help="Send a signal to a wait of a workflow.",
    help=f"Send a signal to a wait of the workflow ID. {_SIGNAL.risk}\n{_operate.EXITS}",
)
@_ID
@click.option("--wait", required=True, help="The name of the wait.")
@click.option("--payload", default="", help="The payload as JSON; null by default.")
@_operate.options
def signal(id_: int, wait: str, payload: str, **options: Any) -> None:
    """Signal one wait."""
    params = {"wait": wait, "payload": payload}
    _operate.run_action(_SIGNAL.name, [f"workflow/{id_}"], params=params, **options)


@workflow.command(
    "give-signal",
    short_help="Give a signal that was sent to a wait of a workflow.",
    help=f"Give a signal to a wait of the workflow ID. {_GIVE.risk}\n{_operate.EXITS}",
)
@_ID
@click.option("--wait", required=True, help="The name of the wait.")
@click.option("--signal", required=True, help="The id of the signal.")
@_operate.options
def give_signal(id_: int, wait: str, signal: str, **options: Any) -> None:
    """Give one signal to one wait."""
    params = {"wait": wait, "signal": signal}
    _operate.run_action(_GIVE.name, [f"workflow/{id_}"], params=params, **options)
