"""Forensics of a subject without rows says what is so and what to look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.host import Host
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import make_job

Get = Callable[..., Any]


def test_of_one_whom_nobody_knows_it_says_where_to_look(get: Get) -> None:
    tree = soup(get("/forensics/queue/nobody-s").text)
    assert "no row, no decision and no incident names it" in tree.select_one(".say").text
    assert "look for its id or name in Forensics" in tree.select_one("[aria-labelledby=paths]").text
    assert not tree.find("a", href="/ops/jobs/queues/nobody-s"), "no such page"


def test_a_step_that_is_only_a_job_leads_to_the_job(
    get: Get, session: Session, access: Access
) -> None:
    job = make_job(session)
    session.commit()
    tree = soup(get(f"/forensics/step/{job.id}").text)
    assert f"Job {job.id} is no step of a workflow" in tree.select_one(".say").text
    assert tree.find("a", href=f"/ops/jobs/forensics/job/{job.id}")
    access.held.remove("jobs.view")
    hidden = soup(get(f"/forensics/step/{job.id}").text)
    assert f"Nothing is known of step {job.id}" in hidden.select_one(".say").text


def test_of_one_whose_rows_are_removed_no_state_is_told(
    get: Get, host: Host, session: Session
) -> None:
    job = make_job(session, "failed")
    session.commit()
    Operator(host).run("job.delete", [f"job/{job.id}"], actor="anna", reason="asked for, OPS-77")
    panel = soup(get(f"/forensics/job/{job.id}").text).select_one("[aria-labelledby=paths]")
    assert "No action could change anything of it." in panel.text
