"""Every command that prints JSON says the number of its format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
import pytest
from flask import Flask

from flask_opsjobs import JobFilter, Limit, OpsJobs
from flask_opsjobs.actions.registry import ACTIONS
from flask_opsjobs.cli import JSON_FORMAT
from flask_opsjobs.cli import opsjobs as group
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline import incidents
from flask_opsjobs.lifeline.finding import DetectorPass, Finding
from tests.support.engine import Bench

WHY = ("--reason", "a test of the JSON", "--dry-run")
# The words after each command. A command on an action
# that is not listed here gets a job, a queue or a limiter.
WORDS = {
    "audit export": (),
    "audit list": ("--json",),
    "audit verify": ("--json",),
    "incident show": ("1", "--json"),
    "incidents": ("--json",),
    "enqueue": ("call", *WHY, "--json"),
    "failures": ("--json",),
    "jobs": ("--json",),
    "deployed": ("2026.11.3", "--json"),
    "doctor": ("--json",),
    "limiter explain": ("api", "--json"),
    "operation list": ("--json",),
    "operation show": ("1", "--json"),
    "operation start": ("cancel", "state:available", *WHY, "--json"),
    "limiter list": ("--json",),
    "limiter simulate": ("call", "--count", "3", "--json"),
    "note": ("job/1", "the vendor is away", "--json"),
    "queue clear": ("mail", *WHY, "--json"),
    "queue list": ("--json",),
    "signal": ("payment", "--json"),
    "tasks": ("--json",),
    "why": ("1", "--json"),
    "workers": ("--json",),
}
TARGETS = {
    "job": "1",
    "batch": "1",
    "queue": "mail",
    "task": "call",
    "limiter": "api",
    "lease": "1-1",
    "delivery": "opsjobs-1-1",
    "cron": "nightly",
    "workers": "nobody",
    "workflow": "1",
    "incident": "1",
    "failure": "1",
    "operation": "1",
}
PARAMS = {
    "job edit": ("--priority", "3"),
    "job reschedule": ("--due-at", "2099-01-03T00:00Z"),
    "cron catch-up": ("1",),
    "failure ignore": ("--more", "3"),
    "incident acknowledge": ("--until", "2h"),
    "queue set-prefetch": ("3",),
    "limiter cooldown": ("--minutes", "3"),
    "workflow give-signal": ("--wait", "paid", "--signal", "1"),
    "workflow signal": ("--wait", "paid"),
    "workflow skip": ("--step", "fetch"),
}


def _commands(
    found: click.Command = group, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(found, click.Group) or found.invoke_without_command:
        yield " ".join(path), found
    if isinstance(found, click.Group):
        context = click.Context(found)
        for name in found.list_commands(context):
            command = found.get_command(context, name)
            assert command is not None
            yield from _commands(command, (*path, name))


PRINT_JSON = [
    name
    for name, command in _commands()
    if name == "audit export" or any("--json" in option.opts for option in command.params)
]


@pytest.fixture
def site(app: Flask, opsjobs: OpsJobs, host: Host, bench: Bench) -> Flask:
    """An app with a job, a limiter, an incident, an operation, and a decision in the audit."""

    @opsjobs.task(queue="mail", limit=Limit("api", rate=10, per=60), enqueue_from_page=True)
    def call() -> None: ...

    with app.app_context():
        declare_limiters(host, "test")
        call.enqueue()
        app.extensions["sqlalchemy"].session.commit()
        opsjobs.operator.pause("mail", actor="anna", reason="the vendor is away")
        opsjobs.operator.draft("job.cancel", JobFilter(state="available"), actor="anna")
    facts = {"loop": "stage", "failed": 5, "process": "p", "error": "no"}
    found = DetectorPass([Finding("loop/stage", facts=facts)])
    incidents.apply_pass(bench.connection, "loop_failing", found, read_clock(bench.connection))
    return app


def test_the_list_finds_the_commands() -> None:
    assert {"why", "audit export", "limiter list", "job retry"} <= set(PRINT_JSON)
    groups = {name.split()[0] for name in PRINT_JSON}
    assert groups >= {action.domain for action in ACTIONS.values()} - {"cron", "worker"}
    assert {"workers", "workers drain", "workers forget"} <= set(PRINT_JSON)


@pytest.mark.parametrize("name", PRINT_JSON)
def test_each_object_says_its_format(name: str, site: Flask) -> None:
    words = WORDS.get(name)
    if words is None:
        words = (TARGETS[name.split()[0]], *PARAMS.get(name, ()), *WHY, "--json")
    run = site.test_cli_runner().invoke(args=["opsjobs", *name.split(), *words])
    printed: list[dict[str, Any]] = (
        [json.loads(line) for line in run.stdout.splitlines()]
        if name == "audit export"
        else [json.loads(run.stdout)]
    )
    assert printed, run.output
    assert [(next(iter(found)), found["format"]) for found in printed] == [
        ("format", JSON_FORMAT)
    ] * len(printed)
