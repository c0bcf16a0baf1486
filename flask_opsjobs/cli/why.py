"""Prints every reason why a job is not running, the deciding one first: `flask opsjobs why`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import click
from flask.cli import with_appcontext

from ..core.display import Display
from ..engine.explain_with_redis import explain_apart
from ..errors import UnknownJob
from ..explain.reason_kinds import Explanation, Reason, as_text
from ..jobs.search import terms
from . import current_host, plain, to_json


@click.command("why")
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@with_appcontext
def why(job: str, as_json: bool) -> None:
    """Print why JOB, an id or an RQ id, is not running.

    Reads only. Exits 0 with an explanation, 1 when there is no such job, 2 when JOB is not an id or
    the database does not answer.
    """
    host = current_host()
    clean = Display(host.display, may_see=True).clean
    job_id = terms.read_job_id(job)
    if job_id is None:
        _stop(2, f"{job!r} is neither the id of a job nor an RQ id such as opsjobs-42-1")
    try:
        found = explain_apart(host, job_id)
    except UnknownJob as error:
        _stop(1, str(error))
    if as_json:
        click.echo(to_json(found.to_json(clean), indent=2))
    else:
        click.echo(plain(*_lines(found, clean)))


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


def _of_reason(number: int, reason: Reason, clean: Callable[[str], str]) -> Iterator[str]:
    yield f"{number}. {clean(reason.says)} [{reason.code}]"
    if reason.by or reason.quote:
        quote = f": {clean(reason.quote)}" if reason.quote else ""
        yield f"   {clean(reason.by or 'it says')}{quote}"
    for word, moment in (("since", reason.since), ("until", reason.until)):
        if moment is not None:
            yield f"   {word} {as_text(moment)}"
    read = ", ".join(f"{name} {value}" for name, value in reason.read.items())
    yield f"   read {as_text(reason.read_at)}, reported by {reason.source}: {clean(read)}"
    yield f"   {clean(reason.todo)}"
    if reason.action:
        yield f"   helps: {reason.action} on {clean(reason.target or '')}"
