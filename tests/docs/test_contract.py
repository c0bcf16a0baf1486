"""The docs contract: pages name only what exists, and each checker finds a lie."""

from __future__ import annotations

import builtins
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator

import click
import pytest
from flask import Flask
from flask.cli import routes_command, run_command, shell_command
from flask_migrate.cli import db

import flask_opsjobs
from flask_opsjobs import OpsJobs, settings, signals
from flask_opsjobs.doctor.registry import CHECKS
from flask_opsjobs.jobs.search import attempt_queries, further_queries, group_queries, hit_queries
from flask_opsjobs.operations.operator import BulkOperator
from flask_opsjobs.telemetry.metrics import METRICS
from flask_opsjobs.testing import plugin
from flask_opsjobs.web.app.access import PERMISSIONS
from tests.docs import contract
from tests.support.sources import ROOT, files, place
from tests.test_examples import FIXTURES, PUBLIC

# History names what is gone, and decisions what was weighed.
PAGES = [*files("docs", "*.md"), *ROOT.glob("*.md")]
PAGES = [page for page in PAGES if "decisions" not in page.parts and page.name != "CHANGES.md"]
SETTINGS = {settings.PREFIX + each.key for each in settings.SETTINGS}
# Those of our own tests.
SETTINGS |= {"OPSJOBS_TEST_DATABASE_URL", "OPSJOBS_TEST_REDIS_URL"}
ALLOWED = {*PERMISSIONS, "bridge.view"}
NAMES = {each.name for each in METRICS} | {name for name in vars(plugin) if "opsjobs_" in name}
# The policies that the installer writes, and a file of an export.
NAMES |= {"opsjobs_access", "opsjobs_display", "opsjobs_escalation", "opsjobs_export"}
# Words of the same form: methods, a logger, a repair of incidents, and a decision of the system.
OTHER_WORDS = {
    *("batch.enqueue", "batch.enqueue_many", "queue.enqueue", "rq.worker"),
    *("operation.retry", "limiter.declare"),
}
# On these pages, the classes of others: of Python, RQ and Werkzeug, of a host, and names in files of systemd.
CLASSES = {
    *flask_opsjobs.__all__,
    *vars(builtins),
    *re.findall("alert: (.+)", (ROOT / "examples/prometheus/alerts.yml").read_text()),
    *("CheckContext", "DeferredJobRegistry", "NoSuchJobError", "SimpleWorker", "ProxyFix"),
    *("ThreadPoolExecutor", "RoleAccess", "RestartSec", "TimeoutStopSec", "WatchdogSec"),
}
ATTRIBUTES: dict[str, list[object]] = {
    "opsjobs": [OpsJobs],
    "opsjobs.operator": [BulkOperator],
    "signals": [signals],
}
# A fixture is called by what it gives, and not by its own arguments.
CALLED = contract.arguments_of(
    {name: found for name, found in PUBLIC.items() if name not in FIXTURES}
)
# Two pages say what to type instead.
GONE = "opsjobs worker --simple: no option --simple"
ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}

# Commands of `flask` that are neither ours nor the host's.
OF_FLASK = {"db": db, "run": run_command, "routes": routes_command, "shell": shell_command}
# Those of hosts: the example's, and that of Flask-RQ.
OF_HOSTS = {name: click.Command(name, context_settings=ANYTHING) for name in ("seed", "feed", "rq")}
# What a person types into a shell.
PROGRAMS = {
    *(".", "cd", "echo", "export", "mkdir", "curl", "python", "python3", "pip", "make", "flask"),
    *("createdb", "dropdb", "gunicorn", "systemctl"),
}

Check = Callable[[str], Iterable[str]]


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """A host that also has the addresses that a setting switches on."""
    return make_app(OPSJOBS_METRICS_TOKEN="sixteen-characters")


@pytest.fixture
def group(app: Flask) -> click.Group:
    found = app.cli.commands["opsjobs"]
    assert isinstance(found, click.Group)
    return found


@pytest.fixture
def checks(app: Flask, group: click.Group) -> dict[str, Check]:
    """Each checker, with what exists."""

    def in_blocks(check: Check) -> Check:
        return lambda text: (
            each for code in contract.blocks(text, "python") for each in check(code)
        )

    flask = click.Group("flask", {**OF_FLASK, **OF_HOSTS, "opsjobs": group})
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    return {
        "setting": lambda text: contract.unknown_settings(text, SETTINGS),
        "command": lambda text: {*contract.wrong_commands(text, flask)} - {GONE},
        "shell": lambda text: contract.wrong_shell(text, targets, extras, PROGRAMS),
        "permission or check": lambda text: contract.unknown_words(
            text, {*ALLOWED, *CHECKS, *OTHER_WORDS}
        ),
        "metric or fixture": lambda text: contract.unknown_words_of_ours(text, NAMES),
        "name": in_blocks(contract.unknown_names),
        "method or event": in_blocks(lambda code: contract.unknown_attributes(code, ATTRIBUTES)),
        "argument": lambda text: (
            each
            for code in contract.python(text)
            for each in contract.unknown_arguments(code, CALLED)
        ),
        "class": lambda text: contract.unknown_classes(text, CLASSES),
        "address": lambda text: contract.unknown_addresses(text, app.url_map),
    }


def _wrong(checks: dict[str, Check]) -> Iterator[str]:
    for page in PAGES:
        text = page.read_text()
        for kind, check in checks.items():
            for found in check(text):
                line = text[: max(text.find(found.partition(":")[0]), 0)].count("\n") + 1
                yield f"{place(page, line)}: {kind} {found}"


def test_pages_name_only_what_exists(checks: dict[str, Check]) -> None:
    assert list(_wrong(checks)) == []


SEARCHED = {
    "stops at {:,}:": hit_queries.MOST_LISTED,
    "own indexes, up to {:,} hits": hit_queries.MOST_HITS,
    "shows all hits among the newest {:,} jobs": hit_queries.NEWEST_JOBS,
    "Of an argument that more than {:,} jobs have, and one in forty": hit_queries.MANY_JOBS,
    "and one in {} of all": hit_queries.MANY_OF_TAG,
    "in the newest {:,} jobs that have an error": hit_queries.NEWEST_ERRORS,
    "the newest {:,} jobs with an error are examined": further_queries.MOST_NEWEST,
    "the newest {:,} workflows or batches are searched": group_queries.MOST_GROUPS,
    "Of each, the newest {:,} jobs of each state": group_queries.MOST_JOBS,
    "is examined of each of the newest {:,} jobs": further_queries.MOST_NEWEST,
    "the newest {:,} attempts are searched": attempt_queries.MOST_ATTEMPTS,
}


@pytest.mark.parametrize("sentence", SEARCHED)
def test_the_page_about_searches_has_the_limits_of_the_code(sentence: str) -> None:
    text = " ".join((ROOT / "docs/searching.md").read_text().split())
    assert sentence.format(SEARCHED[sentence]) in text


def test_each_test_that_a_page_names_exists() -> None:
    unknown = [
        f"{page.name}: {path}::{name}"
        for page in PAGES
        for path, name in re.findall(r"`(tests/[\w/.]+)::(\w+)`", page.read_text())
        if f"def {name}(" not in (ROOT / path).read_text()
    ]
    assert unknown == []


def unproven(text: str) -> list[str]:
    """The promises of *Guarantees* that name no test: entries of its first list, and rows of its tables."""
    entries = re.findall(r"^- \*\*(?:.+\n)+?(?=- |\n|\Z)", text.partition("\n## ")[0], re.MULTILINE)
    rows = re.findall(
        r"^\| (?!…|-).+ \|$", text.partition("\n## What happens when")[2], re.MULTILINE
    )
    assert len(entries) >= 8
    assert len(rows) >= 30
    return [each for each in (*entries, *rows) if "`tests/" not in each]


def test_each_promise_names_a_test() -> None:
    """README says that it does."""
    text = (ROOT / "docs/guarantees.md").read_text()
    assert unproven(text) == []
    lies = (
        "- **It is fast.** Always.\n- **No dead",
        "| a lie | holds | it is well known |\n| your receiver",
    )
    for lie in lies:
        assert len(unproven(text.replace(lie.split("\n")[1], lie, 1))) == 1, lie


@pytest.mark.parametrize(
    ("kind", "lie"),
    [
        ("setting", "Set `OPSJOBS_PREFETHC` to 5."),
        ("setting", "```console\n$ export FLASK_OPSJOBS_REDIS_ADDRESS=redis://localhost\n```"),
        ("shell", "```console\n$ creatdb shop\n```"),
        ("shell", '```console\n$ pip install "flask-opsjobs[binary,brigde]"\n```'),
        ("shell", "```console\n$ make demos\n```"),
        ("shell", "Run `make everything`."),
        ("command", "```console\n$ flask db upgrad\n```"),
        ("command", "```console\n$ flask opsjobs cron pause NAME --because 'CRM moves'\n```"),
        ("command", "```console\n$ flask opsjobs job retry x --reason 'see OPS-311'\n```"),
        ("command", "```console\n$ flask opsjobs whyy 42\n```"),
        ("command", "```console\n$ flask opsjobs cron stop nightly\n```"),
        ("command", "```console\n$ flask opsjobs job retry 42 --because tired\n```"),
        (
            "command",
            "```console\n$ flask opsjobs job retry forty-two --reason 'it is due now'\n```",
        ),
        ("command", "```console\n$ flask opsjobs doctor --only redis.colour\n```"),
        ("command", "Run `flask opsjobs restore --everything`."),
        ("permission or check", "It needs `job.retri`."),
        ("permission or check", "It needs `salaries.view`."),
        ("metric or fixture", "Alert on `opsjobs_jobs_vanished_total`."),
        ("metric or fixture", "Alert on `rq_workers_asleep`."),
        ("metric or fixture", "```python\ndef test_it(opsjobs_drained): ...\n```"),
        ("permission or check", "The doctor says `redis.colour`."),
        ("name", "```python\nfrom flask_opsjobs import Retry\n```"),
        ("name", "```python\nfrom flask_opsjobs.testing.mysql import MySQL\n```"),
        ("method or event", "```python\nopsjobs.enqueue(greet)\n```"),
        ("method or event", "```python\nopsjobs.operator.resurrect([1])\n```"),
        ("method or event", "```python\nsignals.job_vanished.connect(print)\n```"),
        ("argument", "```python\nopsjobs.operator.retry([1], because='they called')\n```"),
        ("argument", "It is `Unique(during=timedelta(hours=1))`."),
        ("class", "It raises `JobVanished`."),
        ("address", "Open `/ops/jobs/salaries`."),
    ],
)
def test_a_lie_is_found(checks: dict[str, Check], kind: str, lie: str) -> None:
    assert [name for name, check in checks.items() if list(check(lie))] == [kind]


def test_every_permission_and_command_is_told_somewhere(group: click.Group) -> None:
    access = (ROOT / "docs/access.md").read_text()
    assert [each for each in sorted(ALLOWED) if f"`{each}`" not in access] == []
    told = "\n".join(page.read_text() for page in PAGES)
    names = group.list_commands(click.Context(group))
    assert [each for each in names if not re.search(rf"flask opsjobs {each}\b", told)] == []


def test_no_summary_of_a_command_is_cut(
    group: click.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a list of commands, on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    with click.Context(group, info_name="opsjobs") as context:
        commands = [group.get_command(context, name) for name in group.list_commands(context)]
    groups = [group, *(each for each in commands if isinstance(each, click.Group))]
    helps = [each.get_help(click.Context(each, info_name=each.name)) for each in groups]
    assert len(helps) > 10
    assert [line for text in helps for line in text.splitlines()[1:] if line.endswith("...")] == []
