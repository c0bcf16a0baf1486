"""Runs operators' actions for commands: their common options, their output and their exit codes."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import click

from ..actions.operator import Operator
from ..actions.planning import UNREADABLE
from ..actions.registry import ACTIONS
from ..actions.shapes import Item, Plan, Receipt, Skip, write_json
from ..errors import ActionRefused
from . import current_host, plain, to_json

# click exits with 2 for a wrong command line; here 2 also means that the action could not be requested.
EXITS = """
Exits with 0 when all was done (or can be, with --dry-run), 3 when some targets were skipped, 1 when it was
refused and nothing was changed, 2 when it could not be requested: a wrong command line, or Postgres does not
answer.
"""
# The help of an option that takes what `actions.times.read_until` reads.
UNTIL = "A span such as 30m, 2h or 3d, or a time such as 2026-11-26T09:00, in UTC unless it has an offset."
_DONE, _REFUSED, _NOT_ASKED, _SKIPPED = 0, 1, 2, 3
F = TypeVar("F", bound=Callable[..., Any])


def options(function: F) -> F:
    """Add the options that an action takes to a command."""
    reason = click.option("--reason", help="Why, in at least 8 characters; it stays in the audit.")
    return options_without_reason(reason(function))


def options_without_reason(function: F) -> F:
    """Add the options of an action whose reason is no option, such as that of a note."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option(
            "--dry-run", is_flag=True, help="Print what would be done, and write nothing."
        ),
        click.option("--actor", help="Who does it; the user of this shell by default."),
    ):
        function = option(function)
    return function


def run_action(
    action: str,
    targets: Sequence[str],
    *,
    reason: str | None,
    actor: str | None,
    dry_run: bool,
    as_json: bool,
    params: Mapping[str, Any] | None = None,
) -> NoReturn:
    """Execute the action, or print its plan, and exit.

    No access policy is asked: whoever has a shell here is trusted.
    """
    if reason is None and not dry_run:
        raise click.UsageError("say why with --reason, or look first with --dry-run")
    if actor and not actor.strip():
        raise click.UsageError("--actor is the name of who does it")
    operator, who = Operator(current_host()), actor or find_user()
    try:
        if dry_run:
            plan = operator.plan(action, targets, actor=who, params=params, authorize=False)
            _leave([_json(plan)] if as_json else _say_plan(plan), _exit_code(plan))
        receipt = operator.run(
            action,
            targets,
            actor=who,
            reason=reason or "",
            via="cli",
            params=params,
            authorize=False,
        )
    except ActionRefused as refused:
        receipt = refused.receipt
    _leave([_json(receipt)] if as_json else _say_receipt(receipt), _exit_code(receipt))


def _leave(lines: Sequence[str], code: int) -> NoReturn:
    click.echo(plain(*lines))
    raise SystemExit(code)


def _exit_code(found: Plan | Receipt) -> int:
    if isinstance(found, Receipt) and found.code == UNREADABLE:
        return _NOT_ASKED
    is_done = found.is_done if isinstance(found, Receipt) else bool(found.items)
    if not is_done:
        return _REFUSED
    return _SKIPPED if found.skipped else _DONE


def _say_plan(plan: Plan) -> list[str]:
    lines = [f"{ACTIONS[plan.action].title}: {len(plan.items)} of {len(plan.targets)} can be done"]
    return [*lines, *_lines(plan.items, plan.skipped), plan.risk]


def _say_receipt(receipt: Receipt) -> list[str]:
    # The refusal of one target says what its skip says.
    skipped = [skip for skip in receipt.skipped if skip.says != receipt.says]
    lines = [receipt.says, *_lines(receipt.done, skipped)]
    if receipt.audit_sequence is not None:
        lines.append(f"audit {receipt.audit_sequence}")
    return lines


def _lines(items: Sequence[Item], skipped: Sequence[Skip]) -> list[str]:
    lines = []
    for item in items:
        lines.append(f"  {item.target}  {item.name}")
        lines += [
            f"    {change.what}: {change.before or '–'} → {change.after or '–'}"
            for change in item.changes
        ]
        lines += [f"    {item.note}"] if item.note else []
    return lines + [f"  {skip.target}  skipped, {skip.code}: {skip.says}" for skip in skipped]


def _json(found: Plan | Receipt) -> str:
    return to_json(write_json(found))


def cannot_write(error: OSError, command: str) -> click.ClickException:
    """What a command says that could not write a file of the app, and can be run again.

    Alembic names no file when the disk is full while it writes a revision.
    """
    file = error.filename or "a new revision"
    return click.ClickException(
        f"cannot write {file}: {error.strerror}: let {find_user()} write there, "
        f"then run `flask opsjobs {command}` again"
    )


def find_user() -> str:
    """Return who has this shell."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a number without a name
        return "cli"
