"""Every Python block of the docs runs in a prepared host, in another test, or is excepted with a reason."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import prometheus_client
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs
from tests.docs.contract import blocks
from tests.support.guides import outputs
from tests.support.policies import AllowAll, ShowAll
from tests.support.sources import ROOT, files

PAGES = {page.name: page for page in [*files("docs", "*.md"), ROOT / "README.md"]}
WITH_BLOCKS = {name: page for name, page in PAGES.items() if blocks(page.read_text(), "python")}
# Blocks that a test of their own runs, with what the page says about the result: words that no other block of
# the page has, each with the test. Every block that is not named here runs below.
_FIRST_APP = "tests/newcomer/test_first_app.py::test_a_newcomer_gets_where_the_page_says"
_README = "tests/newcomer/test_readme.py::test_sixty_seconds_lead_to_a_job_and_its_page"
_FROM_RQ = "tests/install/test_from_rq_dashboard.py::test_a_reader_gets_where_the_guide_says"
_BATCHES = "tests/batches/test_guide.py::test_every_example_runs"
_WORKFLOWS = "tests/workflows/test_guide.py::test_every_example_runs"
_SIGNALS = "tests/workflows/test_guide.py::test_every_example_of_signals_runs"
_BRIDGE = "tests/bridge/test_guide.py::test_its_code_mounts_the_pages_for_whom_it_says"
_TRACKERS = "tests/telemetry/test_tracker_guides.py::test_the_guide_of_error_trackers"
_TRACING = "tests/telemetry/test_tracker_guides.py::test_the_guide_of_tracing"
_FORENSICS = "tests/forensics/test_guide.py::test_its_"
ELSEWHERE = {
    "README.md": {"import Flask": _README, "def greet(": _README, 'return "me"': _README},
    "batches.md": {"def import_row(": _BATCHES, "25_000": _BATCHES, "orders of today": _BATCHES},
    "bridge.md": {"OPSJOBS_BRIDGE": _BRIDGE, "class HostAccess": _BRIDGE},
    "error-trackers.md": {"sentry_sdk.init(": _TRACKERS, "signals.attempt_raised": _TRACKERS},
    "escalation.md": {
        "open_ticket(": "tests/escalations/test_guide.py::test_the_example_is_a_policy",
        "import smtplib": "tests/escalations/test_guide.py::test_the_mail_arrives",
        "import Request, urlopen": "tests/escalations/test_guide.py::test_the_webhook_is_called",
    },
    "first-app.md": {
        "# app.py\n": _FIRST_APP,
        "# app.py, at its end": _FIRST_APP,
        "# opsjobs_access.py": _FIRST_APP,
        "# plain.py": _FIRST_APP,
    },
    "forensics.md": {
        "def has_room(": f"{_FORENSICS}runbook_is_declared_and_its_check_is_asked",
        "opsjobs.forensics(": f"{_FORENSICS}function_is_called_and_its_hash_is_computed_again",
        "import hashlib": f"{_FORENSICS}function_is_called_and_its_hash_is_computed_again",
    },
    "from-rq-dashboard.md": {
        "# app.py\n": _FROM_RQ,
        "# shop_mail.py\ndef": _FROM_RQ,
        "# app.py, at its end\nfrom": _FROM_RQ,
        "# opsjobs_access.py": _FROM_RQ,
        "# shop_mail.py\nfrom": _FROM_RQ,
        "# app.py, instead of pay": _FROM_RQ,
        "# app.py, at its end\nimport": _FROM_RQ,
    },
    "operations.md": {
        "opsjobs.operator.start(": "tests/operations/test_guide.py::test_its_example",
        "FREEZES = [": "tests/operations/test_guide.py::test_a_freeze_by_calendar",
        "class Agreement(": "tests/operations/test_guide.py::test_a_second_person",
    },
    "policies.md": {
        "ROLES = {": "tests/web/test_policies.py::test_roles",
        "PRIVACY = {": "tests/web/test_policies.py::test_payload_apart",
        "TEAM_OF = {": "tests/web/test_policies.py::test_one_queue_for_each_team",
    },
    "signals.md": {
        "def ask_for_payment(": _SIGNALS,
        '"cents": 990': _SIGNALS,
        "def payment_webhook(": _SIGNALS,
        '"cents": 450': _SIGNALS,
        "def approval(": _SIGNALS,
        "run=second.id": _SIGNALS,
        "offer-7": _SIGNALS,
        "def remind(": _SIGNALS,
    },
    "tracing.md": {"TracerProvider(": _TRACING, "POST /invoices": _TRACING},
    "workflows.md": {
        "def fetch_customer(": _WORKFLOWS,
        'workflow("month")': _WORKFLOWS,
        "def clean_up(": _WORKFLOWS,
        "bill.options(": _WORKFLOWS,
        "def book(": _WORKFLOWS,
        "def resize(": _WORKFLOWS,
        "opsjobs.chain(": _WORKFLOWS,
        'workflow("all accounts")': _WORKFLOWS,
        "unique=": _WORKFLOWS,
        "def greet(": _WORKFLOWS,
    },
}
# Blocks that are not run, and why.
EXCEPTED = {
    "testing.md": {
        "signal.pause()": "it waits until somebody ends it; tests/testing starts both servers"
    },
    "cron.md": {
        "pause_cron(": "the entry is the example host's; tests/host/test_journey.py pauses it"
    },
}
# Tests that run the commands whose output a page shows, and compare it.
SHOWN = {
    "README.md": "tests/newcomer/test_readme.py",
    "audit.md": "tests/audit/test_guide.py",
    "doctor.md": "tests/newcomer/test_first_app.py",
    "escalation.md": "tests/escalations/test_guide.py",
    "failures.md": "tests/failures/test_guide.py",
    "lifeline.md": "tests/cli/test_incidents.py",
    "numbers.md": "tests/cli/test_tasks.py",
    "redis-lost.md": "tests/chaos/test_restore.py",
}
# The modules of a host that pages import.
MODULES = (
    *("myapp", "myapp.tasks", "myapp.policies", "shop", "shop.models", "shop.tasks"),
    *("opsjobs_access", "opsjobs_display"),
)


class _Module(ModuleType):
    """A module of the host: it has whatever a page has defined or the prepared host has."""

    names: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.names[name]


@pytest.fixture
def names(
    app: Flask,
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[dict[str, Any]]:
    """What a page may use without saying where it comes from."""

    @opsjobs.task(queue="billing")
    def charge(account_id: int) -> None: ...

    # Pages speak of job 42.
    charge.enqueue_many({"account_id": number} for number in range(43))
    db.session.commit()
    names: dict[str, Any] = {
        "app": app,
        "db": db,
        "opsjobs": opsjobs,
        "charge": charge,
        "Invoice": object,
        "process_invoice": charge,
        "create_app": lambda **config: app,
        "HostAccess": AllowAll,
        "HostDisplay": ShowAll,
        "__name__": "page",
    }
    for name in MODULES:
        module = _Module(name)
        module.names = names
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", database_url)
    monkeypatch.setenv("FLASK_SECRET_KEY", "only for tests")
    monkeypatch.setattr(prometheus_client, "REGISTRY", prometheus_client.CollectorRegistry())
    handlers = list(logging.getLogger().handlers)
    yield names
    logging.getLogger().handlers[:] = handlers


def run(name: str, text: str, names: dict[str, Any]) -> None:
    """Run the blocks of a page, one after the other, but for those that are named above."""
    codes = blocks(text, "python")
    others = {*ELSEWHERE.get(name, ()), *EXCEPTED.get(name, ())}
    named = {words: sum(words in code for code in codes) for words in others}
    assert {words: count for words, count in named.items() if count != 1} == {}, name
    for number, code in enumerate(codes, 1):
        if any(words in code for words in others):
            continue
        try:
            exec(compile(code, f"{name}, block {number}", "exec", dont_inherit=True), names)
        except Exception as error:
            raise AssertionError(f"{name}, block {number}: {error!r}") from error


@pytest.mark.parametrize("name", sorted(WITH_BLOCKS))
def test_each_python_block_runs(name: str, names: dict[str, Any]) -> None:
    if name == "install.md":
        # It joins an app that has only its database.
        names["app"] = Flask("fresh")
        names["app"].config.from_prefixed_env()
        SQLAlchemy(names["app"])
    run(name, WITH_BLOCKS[name].read_text(), names)


def test_what_another_test_runs_is_named_there() -> None:
    tests = [(page, test) for page, named in ELSEWHERE.items() for test in named.values()]
    unnamed = [
        (page, test)
        for page, test in (*tests, *SHOWN.items())
        for path, _, name in [test.partition("::")]
        if not all(each in (ROOT / path).read_text() for each in (page, f"def {name}"))
    ]
    assert unnamed == []
    assert {*ELSEWHERE, *EXCEPTED} <= WITH_BLOCKS.keys()


def test_each_output_that_a_page_shows_is_compared() -> None:
    showing = {
        name: [command for command, _ in outputs(str(path.relative_to(ROOT)))]
        for name, path in PAGES.items()
    }
    assert {name for name, commands in showing.items() if commands} == SHOWN.keys()


@pytest.mark.parametrize("page", ["lie.md", "policies.md"])
def test_a_block_that_raises_is_found(page: str, names: dict[str, Any]) -> None:
    """Also on a page whose other blocks are run by tests of their own."""
    lie = "Do this:\n\n```python\ncharge.enqueue(account=1)\n```\n"
    text = WITH_BLOCKS[page].read_text() if page in WITH_BLOCKS else ""
    with pytest.raises(AssertionError, match=rf"{page}, block {text.count('```python') + 1}: Inv"):
        run(page, text + lie, names)


def test_a_block_like_one_that_another_test_runs_is_found(names: dict[str, Any]) -> None:
    lie = '```python\nROLES = {"eve": "admin"}\n```\n'
    with pytest.raises(AssertionError, match=r"'ROLES = \{': 2"):
        run("policies.md", WITH_BLOCKS["policies.md"].read_text() + lie, names)
