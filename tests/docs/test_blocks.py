"""Every Python block of the docs runs in a prepared host, in another test, or is excepted with a reason."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
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
# Tests of their own run them, with what they say about the result.
ELSEWHERE = {
    "README.md": "tests/newcomer/test_readme.py",
    "batches.md": "tests/batches/test_guide.py",
    "bridge.md": "tests/bridge/test_guide.py",
    "error-trackers.md": "tests/telemetry/test_tracker_guides.py",
    "escalation.md": "tests/escalations/test_guide.py",
    "first-app.md": "tests/newcomer/test_first_app.py",
    "forensics.md": "tests/forensics/test_guide.py",
    "from-rq-dashboard.md": "tests/install/test_from_rq_dashboard.py",
    "operations.md": "tests/operations/test_guide.py",
    "policies.md": "tests/web/test_policies.py",
    "signals.md": "tests/workflows/test_guide.py",
    "tracing.md": "tests/telemetry/test_tracker_guides.py",
    "workflows.md": "tests/workflows/test_guide.py",
}
# Which block of a page is not run, and why.
EXCEPTED = {
    (
        "testing.md",
        "signal.pause()",
    ): "it waits until somebody ends it; tests/testing starts both servers",
    (
        "cron.md",
        "pause_cron(",
    ): "the entry is the example host's; tests/host/test_journey.py pauses it",
}
# Tests that run the commands whose output a page shows, and compare it.
SHOWN = {
    "README.md": "tests/newcomer/test_readme.py",
    "audit.md": "tests/audit/test_guide.py",
    "doctor.md": "tests/newcomer/test_first_app.py",
    "escalation.md": "tests/escalations/test_guide.py",
    "failures.md": "tests/failures/test_guide.py",
    "lifeline.md": "tests/cli/test_incidents.py",
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


def run(page: Path, text: str, names: dict[str, Any]) -> int:
    """Run the blocks of a page, one after the other; returns how many were left out."""
    left_out = 0
    for number, code in enumerate(blocks(text, "python"), 1):
        if any(name == page.name and part in code for name, part in EXCEPTED):
            left_out += 1
            continue
        try:
            exec(compile(code, f"{page.name}, block {number}", "exec", dont_inherit=True), names)
        except Exception as error:
            raise AssertionError(f"{page.name}, block {number}: {error!r}") from error
    return left_out


@pytest.mark.parametrize("name", sorted(WITH_BLOCKS.keys() - ELSEWHERE.keys()))
def test_each_python_block_runs(name: str, names: dict[str, Any]) -> None:
    if name == "install.md":
        # It joins an app that has only its database.
        names["app"] = Flask("fresh")
        names["app"].config.from_prefixed_env()
        SQLAlchemy(names["app"])
    page = WITH_BLOCKS[name]
    left_out = run(page, page.read_text(), names)
    assert left_out == sum(excepted == name for excepted, _ in EXCEPTED)


def test_what_another_test_runs_is_named_there() -> None:
    unnamed = {
        name: path
        for name, path in (*ELSEWHERE.items(), *SHOWN.items())
        if name not in (ROOT / path).read_text()
    }
    assert unnamed == {}
    assert ELSEWHERE.keys() <= WITH_BLOCKS.keys()


def test_each_output_that_a_page_shows_is_compared() -> None:
    showing = {
        name: [command for command, _ in outputs(str(path.relative_to(ROOT)))]
        for name, path in PAGES.items()
    }
    assert {name for name, commands in showing.items() if commands} == SHOWN.keys()


def test_a_block_that_raises_is_found(names: dict[str, Any]) -> None:
    lie = "Do this:\n\n```python\ncharge.enqueue(account=1)\n```\n"
    with pytest.raises(AssertionError, match=r"lie.md, block 1: InvalidArgs"):
        run(Path("lie.md"), lie, names)
