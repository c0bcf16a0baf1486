"""The audit page in a real browser:
no barrier, nothing sideways, and the way from a row to its detail and back.
"""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs import JobFilter
from flask_opsjobs.operations.operator import BulkOperator
from tests.browser.test_pages import noise
from tests.support.browser import faults
from tests.web.rows import make_event, make_incident, make_job

__all__ = ["noise"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LONG = "a_reason_without_any_space_that_could_be_broken_" * 4
PAGES = (
    "/audit?row=2",
    "/audit/4",
    "/audit?since=2h&until=1m&incident=1&limit=50",
    "/audit?row=3&outcome=refused",
)
# Their parts stand on pages above, or on the audit's page in `test_pages.py`.
ALIKE = ("/audit", "/audit/2", "/audit/5", "/audit?q=nothing+like+it")


@pytest.fixture
def decided(app: Flask) -> None:
    """Decisions with long words, many targets, and a refusal; a retry from a preview, and an operation."""
    jobs = [f"job/{number}" for number in range(40)]
    with Session(app.extensions["opsjobs"].engine) as session:
        make_event(session)
        make_event(
            session,
            action="job.retry",
            subject="40 jobs",
            targets=jobs,
            reason=LONG,
            before={job: {"state": "failed"} for job in jobs},
            after={job: {"state": LONG} for job in jobs},
        )
        make_event(
            session, outcome="refused", code="drifted", actor=LONG, subject=LONG, targets=(LONG,)
        )
        made = [make_job(session, state) for state in ("failed", "finished", "failed")]
        session.flush()
        make_incident(session, "callback_failed", facts={"jobs": [made[0].id]})
        session.commit()
        targets = [f"job/{job.id}" for job in made]
    operator, why = BulkOperator(app.extensions["opsjobs"]), "the vendor is back"
    shown = operator.preview("job.retry", targets, actor="tester", via="page")
    operator.execute(shown.id, shown.token, actor="tester", reason=why, via="page")
    operator.start("job.run_again", JobFilter(state="finished"), actor="tester", reason=why)


@pytest.mark.usefixtures("decided")
@pytest.mark.parametrize("paths", [PAGES, pytest.param(ALIKE, marks=pytest.mark.variants)])
def test_no_barrier_and_nothing_sideways_at_any_size(
    page: Any, noise: list[str], paths: tuple[str, ...]
) -> None:
    found = []
    for path in paths:
        page.goto(f"/ops/jobs{path}")
        found += faults(page)
    assert not found, "\n".join(found)
    assert noise == []


@pytest.mark.usefixtures("decided")
def test_from_the_navigation_to_a_refusal_and_its_own_address(page: Any) -> None:
    page.goto("/ops/jobs")
    page.click("nav.side >> text=Audit")
    page.select_option("[name=outcome]", "refused")
    page.click("form.filter >> text=Filter")
    page.click("table.audit tbody a")
    assert "Refused as" in page.inner_text("#row .facts")
    page.click("#row header a")
    page.wait_for_url("**/audit/3")
    page.click(".crumbs >> text=Audit")
    page.wait_for_url("**/audit")
    assert page.locator("table.audit tbody tr").count() == 5
