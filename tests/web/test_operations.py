"""The pages of operations: their list, a draft, and one in each state."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from flask_opsjobs import JobFilter, OpsJobs
from flask_opsjobs.operations.models import Operation
from tests.web.conftest import Access
from tests.web.every import soup

WHY: dict[str, Any] = {"actor": "tester", "reason": "because it is a test"}


def test_a_preview_and_a_decision_open(
    client: FlaskClient, opsjobs: OpsJobs, record_job: Any
) -> None:
    record_job(delay=3600)
    started = opsjobs.operator.start("job.cancel", JobFilter(state="scheduled"), **WHY)
    preview = opsjobs.operator.preview(
        "operation.pause", [f"operation/{started.id}"], actor="tester", via="page"
    )
    shown = client.get(f"/ops/jobs/previews/{preview.id}")
    assert shown.status_code == 200
    assert "Pause" in shown.text
    sent = client.post(
        f"/ops/jobs/previews/{preview.id}/execute",
        data={"token": preview.token, "reason": WHY["reason"]},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert sent.status_code == 303
    event = client.get("/ops/jobs/audit/1")
    assert event.status_code == 200
    assert "operation.start" in event.text
    assert client.get("/ops/jobs/audit?q=operation/1").status_code == 200


# --- the draft of a search

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def _draft(client: FlaskClient, **fields: str) -> Any:
    return client.post("/ops/jobs/operations/draft", data=fields, headers=SAME_ORIGIN)


def test_a_search_becomes_a_draft(client: FlaskClient, record_job: Any) -> None:
    for _ in range(3):
        record_job(delay=3600)
    answer = _draft(
        client, action="job.cancel", q="queue:default state:scheduled", rate="5", back="/x"
    )
    assert (answer.status_code, answer.location) == (303, "/ops/jobs/operations/1")
    page = client.get(answer.location)
    assert "Cancel 3 jobs?" in page.text
    started = client.post(
        "/ops/jobs/operations/1/start", data={"reason": WHY["reason"]}, headers=SAME_ORIGIN
    )
    assert (started.status_code, started.location) == (303, "/ops/jobs/operations/1")
    assert "running" in client.get(started.location).text


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"action": "job.cancel", "state": "failed"}, 422, "no job matches"),
        ({"action": "job.fry", "state": "scheduled"}, 422, "no operation does"),
        ({"action": "job.cancel", "rate": "fast"}, 422, "a whole number from 1 to 10,000"),
        ({"action": "job.cancel", "rate": "0"}, 422, "a whole number from 1 to 10,000"),
        ({"action": "job.cancel", "state": "broken"}, 422, "there is no state"),
        ({"action": "job.cancel", "error": "Boom"}, 422, "no job matches"),
        ({"action": "job.delete"}, 403, "it needs job.delete"),
    ],
)
def test_what_cannot_be_drafted_says_why(
    fields: dict[str, str],
    status: int,
    says: str,
    client: FlaskClient,
    record_job: Any,
    access: Access,
    session: Session,
) -> None:
    record_job(delay=3600)
    access.held.discard("job.delete")
    answer = _draft(client, **fields)
    assert answer.status_code == status
    assert says in soup(answer.text).find(id="dialog-page").text.lower()
    assert session.scalars(select(Operation)).all() == []
