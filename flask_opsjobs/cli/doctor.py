"""Examines the installation, and says what is wrong and what to run: `flask opsjobs doctor`."""

from __future__ import annotations

import sys

import click

from ..doctor.examination import examine
from ..doctor.registry import CHECKS
from ..doctor.report import as_lines, as_values
from . import load_app, plain, to_json


def _known(
    _context: click.Context, _option: click.Parameter, ids: tuple[str, ...]
) -> tuple[str, ...]:
    if unknown := [each for each in ids if each not in CHECKS]:
        raise click.BadParameter(f"there is no check {unknown[0][:60]!r}; --list lists them")
    return ids


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--strict", "is_strict", is_flag=True, help="Exit with 2 also when there are warnings."
)
@click.option("--only", metavar="ID", multiple=True, callback=_known, help="Ask only this check.")
@click.option("--skip", metavar="ID", multiple=True, callback=_known, help="Do not ask this check.")
@click.option("--list", "is_list", is_flag=True, help="Print the checks, and ask nothing.")
@click.pass_context
def doctor(
    context: click.Context,
    as_json: bool,
    is_strict: bool,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    is_list: bool,
) -> None:
    """Check configuration, servers, processes and data. Writes nothing.

    Exits with 0 when nothing is wrong, 1 with warnings, 2 with errors or when something could not be asked.
    """
    if is_list:
        width = max(map(len, CHECKS))
        for check in CHECKS.values():
            click.echo(f"{check.id:<{width}}  {' or '.join(check.levels):<16}  {check.asks}")
        return
    if set(only or CHECKS) <= set(skip):
        raise click.UsageError("--skip leaves out all checks that --only names")
    app, why_not = load_app(context)
    found = examine(app, why_not, only=only, skip=skip)
    if as_json:
        click.echo(to_json(as_values(found, is_strict=is_strict), indent=2))
    else:
        click.echo(plain(*as_lines(found)))
    sys.exit(found.exit_code(is_strict=is_strict))
