"""Prints why a job is not running, or why the jobs of a search wait: `flask opsjobs why`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import click
from flask.cli import with_appcontext

from ..core.db import say_too_large
from ..core.display import Display
from ..core.reading import WHAT_NARROWS
from ..engine.explain_with_redis import explain_apart, explain_search_apart
from ..errors import UnknownBatch, UnknownJob, UnknownWorkflow
from ..explain.reason_kinds import (
    AnyExplanation,
    BatchExplanation,
    Explanation,
    Reason,
    WorkflowExplanation,
    as_text,
)
from ..explain.waiting import WaitingExplanation, say_times
from ..host import Host
from ..jobs.search import terms
from ..jobs.search.filter import JobFilter
from ..jobs.search.terms import BadFilter
from . import current_host, limited, plain, to_json


@click.command("why")
@click.argument("job", required=False)
@click.option(
    "--search",
    help="Explain the waiting jobs of a search, up to 10,000, grouped by their first reasons.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@with_appcontext
def why(job: str | None, search: str | None, as_json: bool) -> None:
    """Print why JOB, an id or an RQ id, is not running.

    Of workflow/7 or batch/7 it prints why it has not ended. With --search instead, why the jobs wait that a
    search finds, such as --search task:send_invoice.

    Reads only. Exits 0 with an explanation, 1 when there is no such job, workflow or batch, 2 when JOB is not
    an id, the search cannot be read or the database does not answer in time.
    """
    host = current_host()
    clean = Display(host.display, may_see=True).clean
    if (job is None) == (search is None):
        _stop(2, "name either a JOB or a --search")
    found: AnyExplanation | WaitingExplanation
    try:
        found = _explain(host, job) if job is not None else _explain_search(host, search or "")
    except (UnknownJob, UnknownWorkflow, UnknownBatch) as error:
        _stop(1, str(error))
    if as_json:
        click.echo(to_json(found.to_json(clean), indent=2))
    elif isinstance(found, Explanation):
        click.echo(plain(*_lines(found, clean)))
    elif isinstance(found, WaitingExplanation):
        click.echo(plain(*_lines_of_waiting(found, clean)))
    elif isinstance(found, WorkflowExplanation):
        click.echo(plain(*_lines_of_workflow(found, clean)))
    else:
        click.echo(plain(*_lines_of_batch(found, clean)))


def _explain(host: Host, text: str) -> AnyExplanation:
    job = terms.read_job_id(text)
    if job is not None or terms.read_subject(text) is not None:
        with limited(host):
            return explain_apart(host, text if job is None else job)
    kind, _, id = text.rpartition("/")
    if kind in ("", "workflow", "batch") and (too_large := say_too_large(kind or "job", id)):
        _stop(2, too_large)
    _stop(
        2,
        f"{text!r} is neither the id of a job, nor an RQ id such as opsjobs-42-1,"
        " nor workflow/7, nor batch/7",
    )


def _explain_search(host: Host, search: str) -> WaitingExplanation:
    try:
        wanted = JobFilter.from_query([("q", search)])
    except BadFilter as error:
        _stop(2, f"{error}")
    with limited(host, WHAT_NARROWS):
        return explain_search_apart(host, wanted)


def _stop(code: int, says: str) -> NoReturn:
    click.echo(f"Error: {says}", err=True)
    sys.exit(code)


def _lines(found: Explanation, clean: Callable[[str], str]) -> Iterator[str]:
    yield f"job {found.job_id} is {found.state}. {clean(found.says)}"
    for number, reason in enumerate(found.reasons, 1):
        yield ""
        yield from _of_reason(number, reason, clean)
    if found.ruled_out:
        yield ""
        yield f"checked, not a cause: {clean(', '.join(found.ruled_out))}"
    if found.lacking:
        yield f"{found.completeness}: {'; '.join(found.lacking)}"


def _lines_of_workflow(found: WorkflowExplanation, clean: Callable[[str], str]) -> Iterator[str]:
    yield f"workflow {found.workflow_id} {clean(found.name)} is {found.state}. {clean(found.says)}"
    if found.trouble:
        yield f"the last advance failed: {clean(found.trouble)}"
    if found.removed:
        names = ", ".join(clean(name) for name in found.removed)
        yield f"never end, because their jobs were deleted: {names}"
    for name, step in found.frontier.items():
        yield ""
        yield from _of_job(f"step {clean(name)}: job", step, clean)


def _lines_of_batch(found: BatchExplanation, clean: Callable[[str], str]) -> Iterator[str]:
    yield f"batch {found.batch_id} {clean(found.name)} is {found.state}. {clean(found.says)}"
    if found.trouble:
        yield f"the last fold failed: {clean(found.trouble)}"
    for callback in found.callbacks:
        of = "the first failure" if callback.event == "failure" else f"end {callback.end_no}"
        was = "failed" if callback.state == "failed" else "was canceled"
        yield f"the callback of {of} {was}: retry job {callback.job_id}"
    for number, reason in enumerate(found.reasons, 1):
        yield ""
        yield from _of_reason(number, reason, clean)
    if found.members:
        yield ""
        yield "the oldest member in each state:"
    for member in found.members.values():
        yield ""
        yield from _of_job("job", member, clean)


def _lines_of_waiting(found: WaitingExplanation, clean: Callable[[str], str]) -> Iterator[str]:
    yield found.says
    width = len(f"{found.number:,}")
    for group in found.groups:
        code = f" [{group.code}]" if group.code else ""
        yield f"{group.number:>{width},}  {clean(group.says)}{clean(say_times(group))}{code}"
        search = f"--search {shlex.quote(clean(group.search.box))}, " if group.search else ""
        yield f"{'':{width}}  {search}such as job {group.example}"
    if found.lacking:
        yield f"not known: {'; '.join(found.lacking)}"


def _of_job(begin: str, found: Explanation, clean: Callable[[str], str]) -> Iterator[str]:
    yield f"{begin} {found.job_id} is {found.state}. {clean(found.says)}"
    for number, reason in enumerate(found.reasons, 1):
        yield from _of_reason(number, reason, clean)


def _of_reason(number: int, reason: Reason, clean: Callable[[str], str]) -> Iterator[str]:
    yield f"{number}. {clean(reason.says)} [{reason.code}]"
    if reason.by or reason.quote:
        quote = f": {clean(reason.quote)}" if reason.quote else ""
        yield f"   {clean(reason.by or 'it says')}{quote}"
    for word, moment in (("since", reason.since), ("until", reason.until)):
        if moment is not None:
            yield f"   {word} {as_text(moment)}"
    read = ", ".join(f"{name} {value}" for name, value in reason.read.items())
    yield f"   read {as_text(reason.read_at)}, {reason.origin}: {clean(read)}"
    yield f"   {clean(reason.todo)}"
    if reason.action:
        yield f"   helps: {reason.action} on {clean(reason.target or '')}"
