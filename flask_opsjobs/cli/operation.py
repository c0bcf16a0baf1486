"""Does one action to all jobs that match: starts, shows, lists, pauses and undoes operations."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, NoReturn

import click
from flask.cli import AppGroup

from ..actions.domain import Action
from ..actions.registry import ACTIONS
from ..core.display import Display
from ..core.reading import Reading
from ..core.words import counted, moment
from ..errors import ActionRefused
from ..jobs.search.filter import JobFilter
from ..jobs.search.terms import BadFilter
from ..operations.actions import read_rate
from ..operations.lifecycle import TABS
from ..operations.operator import OPERABLE, BulkOperator, OperationDraft, say_draft
from ..operations.queries import (
    ListedOperation,
    count_skipped_by_code,
    find_operation,
    page_of_tab,
)
from . import _operate, current_host, number_of, open_snapshot, plain, to_json

# How often `--wait` looks.
_LOOK_SECONDS = 0.5
_FINISHED, _STOPPED, _NOT_ASKED = 0, 1, 2

operation = AppGroup("operation", help="Do one action to all jobs that match, up to a million.")


# --- start


def _short(action: str) -> str:
    return action.partition(".")[2].replace("_", "-")


def _read_rate(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    try:
        return read_rate(text)
    except ValueError as wrong:
        raise click.BadParameter(str(wrong)) from None


def options_of_start(function: _operate.F) -> _operate.F:
    """Add the options that the start of an operation takes to a command."""
    for option in (
        click.option("--wait", is_flag=True, help="Follow it to its end."),
        click.option(
            "--rate", callback=_read_rate, help="So many jobs a second at most; 0: no limit."
        ),
    ):
        function = option(function)
    return function


@operation.command("start", short_help="Do an action to all jobs that match.")
@click.argument("action", type=click.Choice([_short(name) for name in OPERABLE]))
@click.argument("terms", nargs=-1, required=True)
@options_of_start
@_operate.options
def start(
    action: str, terms: tuple[str, ...], rate: int | None, wait: bool, **options: Any
) -> None:
    """Do ACTION to all jobs that fit the TERMS, as in the search box: state:failed queue:mail.

    Options come before the terms, and -- before a term that begins with a minus: -- state:failed -queue:mail.

    First 1 job, then 10, then 100, then the rest. It stops when retried jobs fail as before. The loop
    `operate` does it, so this command returns at once. With --wait it exits 0 when the operation has finished
    and 1 when it stopped or was canceled. Exits 2 when it could not be started.
    """
    name = next(name for name in OPERABLE if _short(name) == action)
    try:
        jobs = JobFilter.from_query([("q", " ".join(terms))])
    except BadFilter as wrong:
        _leave_not_asked(wrong)
    if not jobs.to_query():
        # As from a variable of the shell that is not set.
        raise click.UsageError("say which jobs, such as state:failed: the terms are empty")
    start_on(name, jobs, rate=rate, wait=wait, **options)


def _leave_not_asked(refused: Exception) -> NoReturn:
    click.echo(f"Error: {refused}", err=True)
    sys.exit(_NOT_ASKED)


def start_on(name: str, jobs: JobFilter, *, rate: int | None, wait: bool, **options: Any) -> None:
    """Start an operation of this action on these jobs, or print its draft, as the options say."""
    dry_run, reason, as_json = options["dry_run"], options["reason"], options["as_json"]
    if reason is None and not dry_run:
        raise click.UsageError("say why with --reason, or look first with --dry-run")
    operator, actor = BulkOperator(current_host()), options["actor"] or _operate.find_user()
    try:
        if dry_run:
            draft = operator.draft(
                name, jobs, actor=actor, via="cli", rate=rate, authorize=False, is_kept=False
            )
            click.echo(to_json(_draft_as_object(draft)) if as_json else plain(*say_draft(draft)))
            return
        draft = operator.start(
            name, jobs, rate=rate, via="cli", actor=actor, reason=reason, authorize=False
        )
    except ActionRefused as refused:
        _leave_not_asked(refused)
    assert draft.id is not None
    if as_json and not wait:
        click.echo(to_json(_draft_as_object(draft)))
        return
    if not as_json:
        click.echo(plain(f"operation {draft.id}", *say_draft(draft)))
    if wait:
        _wait(draft.id, as_json=as_json)


def _draft_as_object(draft: OperationDraft) -> dict[str, Any]:
    return {
        "id": draft.id,
        "action": draft.action,
        "targets": draft.targets,
        "legal": draft.legal,
        "counts": [vars(count) for count in draft.counts],
        "rate": draft.rate,
        "risk": draft.risk,
    }


# --- follow


def _wait(id: int, *, as_json: bool) -> None:
    """Draw a bar until the operation has ended, and exit with how it did."""
    found = _find(id)
    with click.progressbar(length=found.targets, label=f"operation {id}", file=sys.stderr) as bar:
        while found.is_open:
            bar.update(found.handled - bar.pos)
            time.sleep(_LOOK_SECONDS)
            found = _find(id)
    _show(found, as_json=as_json)
    sys.exit(_FINISHED if found.state == "finished" else _STOPPED)


def _find(id: int) -> ListedOperation:
    found: ListedOperation | None = _read(lambda read: find_operation(read.session, id))
    if found is None:
        click.echo(f"Error: there is no operation {id}", err=True)
        sys.exit(_STOPPED)
    return found


def _read(look: Callable[[Reading], Any]) -> Any:
    with open_snapshot(current_host()) as read:
        return look(read)


# --- show and list


@operation.command("show", short_help="Show an operation.")
@click.argument("id", type=number_of("operation"))
@click.option("--wait", is_flag=True, help="Follow it to its end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(id: int, wait: bool, as_json: bool) -> None:
    """Print the operation ID: how far it is, why it is paused or stopped, and why jobs were skipped.

    Reads only. Exits 0; 1 when there is no such operation; 2 when ID cannot be an id. With --wait as `start`.
    """
    found = _find(id)
    if wait:
        _wait(id, as_json=as_json)
    _show(found, as_json=as_json)


def _show(found: ListedOperation, *, as_json: bool) -> None:
    skipped = _read(lambda read: count_skipped_by_code(read.session, found.id))
    clean = Display(current_host().display, may_see=True).clean
    if as_json:
        click.echo(to_json({**_as_object(found, clean), "skipped_by_code": skipped}, indent=2))
        return
    click.echo(plain(*_say(found, clean), *_say_counts(found, skipped)))


@operation.command("list", short_help="List the newest operations.")
@click.option("--state", type=click.Choice(list(TABS)), default="all", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(state: str, as_json: bool) -> None:
    """Print the newest operations, or those of a state, at most 50. Reads only. Exits 0.

    Of those that ended, the ones that ended last come first.
    """
    found: Sequence[ListedOperation] = _read(lambda read: page_of_tab(read.session, state))
    clean = Display(current_host().display, may_see=True).clean
    if as_json:
        click.echo(to_json({"operations": [_as_object(each, clean) for each in found]}, indent=2))
        return
    for each in found:
        click.echo(plain(*_say(each, clean)))
    if not found:
        click.echo("there is no operation" + ("" if state == "all" else f" that is {state}"))


def _say(found: ListedOperation, clean: Callable[[str], str]) -> Iterator[str]:
    done = f"{found.handled:,} of {counted(found.targets, 'job')} handled"
    yield f"operation {found.id} is {found.state}: {found.action} by {found.actor}, {done}"
    if found.query is not None:
        yield f"  jobs: {clean(_say_search(found.query)) or 'all'}, frozen {moment(found.created_at)}"
    if found.undo_of is not None:
        yield f"  it undoes operation {found.undo_of}"
    if found.reason is not None:
        yield f"  reason: {clean(found.reason)}"
    if found.says is not None:
        yield f"  {found.state}: {clean(found.says)} ({found.code})"


def _say_search(query: Mapping[str, Any]) -> str:
    """The search that chose the jobs, as it can be typed into the search box."""
    try:
        return JobFilter.from_query(query.items()).box
    except BadFilter:  # written by another version
        return " ".join(f"{name}:{value}" for name, value in query.items())


def _say_counts(found: ListedOperation, skipped: Mapping[str, int]) -> Iterator[str]:
    for result, number in found.counts.items():
        if number:
            yield f"  {number:,} {result}"
    for code, number in skipped.items():
        yield f"    {number:,} skipped, {code}"


def _as_object(found: ListedOperation, clean: Callable[[str], str]) -> dict[str, Any]:
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    texts = ("reason", "says")
    made = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
    }
    made |= {name: clean(made[name]) for name in texts if made[name] is not None}
    return {**made, "counts": found.counts}


# --- pause, resume, cancel, undo


def _add(action: Action[Any]) -> None:
    @operation.command(
        action.short_name,
        short_help=f"{action.title.partition(' ')[0]} operations.",
        help=f"{action.title.partition(' ')[0]} the operations with these IDS. "
        f"{action.risk}\n{_operate.EXITS}",
    )
    @click.argument("ids", nargs=-1, required=True, type=number_of("operation"))
    @_operate.options
    def command(ids: tuple[int, ...], **options: Any) -> None:
        _operate.run_action(action.name, [f"operation/{id}" for id in ids], **options)


for _short_name in ("pause", "resume", "cancel", "undo"):
    _add(ACTIONS[f"operation.{_short_name}"])
