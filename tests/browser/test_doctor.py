"""The doctor's page while Postgres is away: no barrier at any size in either theme; that of a running site is
among the others in `test_pages.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from tests.cli.test_not_asked import NOWHERE
from tests.conftest import MakeApp
from tests.support.browser import faults

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """A host without Postgres, in which two checks are silenced."""
    silenced = ["config.secret_key", "access.open"]
    return make_app(SQLALCHEMY_DATABASE_URI=NOWHERE, OPSJOBS_DOCTOR_SILENCE=silenced)


def test_what_needs_postgres_is_one_row(page: Any) -> None:
    page.goto("/ops/jobs/doctor")
    assert faults(page) == []
    (row,) = page.locator("[aria-labelledby=left-out] .check", has_text="need Postgres").all()
    assert row.locator("code").first.inner_text() == "postgres.reachable"
    ids = row.locator("code").all_inner_texts()
    assert {"schema.version", "loops.awake", "audit.tail"} < set(ids)
    assert f"{len(ids) - 1} checks need Postgres (postgres.reachable failed)" in row.inner_text()
