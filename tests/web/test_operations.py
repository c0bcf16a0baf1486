"""Operations have no page of their own: their previews and decisions lead to Lifeline."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient

from flask_opsjobs import JobFilter, OpsJobs

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
