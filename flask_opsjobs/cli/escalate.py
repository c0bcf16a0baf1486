"""Tries the escalation policy with a marked example: `flask opsjobs escalate --test`."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import click
from flask.cli import with_appcontext

from ..escalations.facts import make_test_facts
from ..escalations.transitions import CALL_SECONDS
from ..loops.policy_process import PolicyProcess
from . import current_host, plain


@click.command("escalate")
@click.option(
    "--test",
    "is_test",
    is_flag=True,
    help="Call the policy now with an example: is_test is true, and nothing is wrong.",
)
@with_appcontext
def escalate(is_test: bool) -> None:
    """Call the escalation policy with a marked example.

    It is called as the loops call it: in a process with 30 s. Needs neither Postgres nor Redis, and stores
    nothing. Exits 0 when the policy returned, 1 when it failed, 2 when the application has no escalation
    policy.
    """
    if not is_test:
        raise click.UsageError(
            "give --test. The loops escalate incidents by themselves: run `flask opsjobs run`"
        )
    host = current_host()
    if host.escalation is None:
        click.echo(
            "unconfigured: the application has no escalation policy, pass OpsJobs(escalation=…)",
            err=True,
        )
        sys.exit(2)
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    caller = PolicyProcess(host, CALL_SECONDS)
    try:
        caller.call(make_test_facts(host.settings, datetime.now(UTC)))
        answer = caller.poll(CALL_SECONDS + 60.0)
    finally:
        caller.close()
    if answer is None or answer.kind != "returned":
        why = "it did not answer" if answer is None else answer.error
        place = f", at {answer.place}" if answer and answer.place else ""
        click.echo(plain(f"failed: {why}{place}"), err=True)
        sys.exit(1)
    if answer.note:
        click.echo(plain(f"note: {answer.note}"), err=True)
    named = f"reference {answer.reference}" if answer.reference else "it returned no reference"
    click.echo(plain(f"invoked: {named}"))
