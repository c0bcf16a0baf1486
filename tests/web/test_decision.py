"""The page of one decision: its preview, the incident it answers, its operation, and its jobs now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from flask_opsjobs import JobFilter
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.operations.models import OperationRow
from flask_opsjobs.operations.operator import BulkOperator
from flask_opsjobs.web.audit import decision
from tests.support.policies import ShowAll
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import make_event, make_failure, make_incident, make_job

Get = Callable[..., Any]
WHY: dict[str, Any] = {"actor": "ops-demo", "reason": "the vendor is back"}


@pytest.fixture
def operator(host: Host) -> BulkOperator:
    """What an operator may do, wherever they ask."""
    return BulkOperator(host)


def _words(element: Any) -> str:
    return " ".join(element.get_text(" ").split())


def _panels(page: str) -> dict[str, Any]:
    """The panels after the decision itself, by heading."""
    return {_words(panel.h2): panel for panel in soup(page).select("section.panel") if panel.h2}


def _rows(panel: Any) -> list[str]:
    return [_words(row) for row in panel.select("tbody tr")]


def _execute(client: FlaskClient, operator: BulkOperator, targets: list[str], action: str) -> None:
    shown = operator.preview(action, targets, actor="ops-demo", via="page")
    answer = client.post(
        f"/ops/jobs/previews/{shown.id}/execute",
        data={"token": shown.token, "reason": WHY["reason"]},
        headers={"Sec-Fetch-Site": "same-origin", "X-Request-ID": "01JDC8"},
    )
    assert answer.status_code == 303


@pytest.fixture
def retried(
    session: Session, client: FlaskClient, operator: BulkOperator, access: Access
) -> list[int]:
    """Three jobs, of which two failed ones were retried from a page, as decision 1."""
    access.actor = "ops-demo"
    made = [make_job(session, state) for state in ("failed", "finished", "failed")]
    session.commit()
    ids = [job.id for job in made]
    _execute(client, operator, [f"job/{id_}" for id_ in ids], "job.retry")
    return ids


def test_it_shows_what_the_preview_said(get: Get, retried: list[int]) -> None:
    panel = _panels(get("/audit/1").text)["What the preview said"]
    said = _words(panel)
    assert "What will change, for 2 jobs" in said
    assert "state 2 failed available" in said
    assert f"How many Why Code 1 it is finished: {retried[1]} illegal" in said


def test_a_preview_that_is_gone_is_said(get: Get, retried: list[int], session: Session) -> None:
    session.execute(text("DELETE FROM opsjobs.previews"))
    session.commit()
    page = get("/audit/1").text
    assert "What the preview said" not in _panels(page)
    assert "Its preview is no longer stored: previews are kept for 30 days." in page


def test_another_preview_with_its_number_is_not_its_own(
    get: Get, retried: list[int], session: Session
) -> None:
    """As after a restore of the table."""
    session.execute(text("UPDATE opsjobs.previews SET created_at = created_at - interval '1 s'"))
    session.commit()
    assert "What the preview said" not in _panels(get("/audit/1").text)


def test_it_shows_what_became_of_its_jobs(
    get: Get, retried: list[int], session: Session, operator: BulkOperator
) -> None:
    first, skipped, last = retried
    panel = _panels(get("/audit/1").text)["What became of its jobs"]
    assert _rows(panel) == [f"available 2 {first} , {last}", f"finished 1 {skipped}"]
    session.execute(text("DELETE FROM opsjobs.jobs WHERE id = :id"), {"id": first})
    session.execute(
        update(Job)
        .where(Job.id == last)
        .values(state="canceled", ended_by="canceled", ended_at=text("now()"))
    )
    session.commit()
    panel = _panels(get("/audit/1").text)["What became of its jobs"]
    assert _rows(panel)[1:] == [
        f"canceled 1 {last}",
        "no longer stored 1 deleted, or removed by retention",
    ]
    assert [link["href"] for link in panel.select("a")] == [
        f"/ops/jobs/jobs/{skipped}",
        f"/ops/jobs/jobs/{last}",
    ]


def test_a_new_job_is_among_its_jobs(
    get: Get, session: Session, client: FlaskClient, operator: BulkOperator, access: Access
) -> None:
    access.actor = "ops-demo"
    job = make_job(session, "finished")
    session.commit()
    _execute(client, operator, [f"job/{job.id}"], "job.run_again")
    new = session.scalars(text("SELECT max(id) FROM opsjobs.jobs")).one()
    page = get("/audit/1").text
    assert _rows(_panels(page)["What became of its jobs"]) == [
        f"available 1 {new}",
        f"finished 1 {job.id}",
    ]
    assert [link.text for link in soup(get(f"/audit?q=job/{new}").text).select("th a")] == ["1"]


def test_a_refusal_and_a_pause_changed_no_job(get: Get, session: Session) -> None:
    job = make_job(session, "failed", ended_by="exhausted")
    target = f"job/{job.id}"
    make_event(session, action="job.retry", targets=(target,), outcome="refused", code="drifted")
    make_event(session)
    session.commit()
    for number in (1, 2):
        assert not any("became" in title for title in _panels(get(f"/audit/{number}").text))


# --- incidents


@pytest.fixture
def held(session: Session) -> int:
    """A failed job, and an incident that lists its retry as a repair."""
    job = make_job(session, "failed", ended_by="exhausted")
    session.flush()
    make_incident(session, "callback_failed", subject="a", facts={"jobs": [job.id]})
    make_incident(session, "callback_failed", subject="b", facts={"jobs": [job.id + 1000]})
    make_incident(
        session,
        "callback_failed",
        "resolved",
        subject="c",
        facts={"jobs": [job.id]},
        resolved_at=text("now()"),
        resolved_by="cleared",
    )
    make_incident(session, "delivery_lost", subject="d", facts={"jobs": [job.id]})
    session.commit()
    return job.id


def test_it_names_the_incident_that_it_answers(
    get: Get, held: int, operator: BulkOperator, access: Access
) -> None:
    operator.run("job.retry", [f"job/{held}"], **WHY)
    operator.run("job.retry", [f"job/{held}"], **WHY)  # refused: it waits
    page = get("/audit/1").text
    (row,) = _rows(_panels(page)["Answers this incident"])
    assert row.startswith("1 ")
    assert row.endswith("open")
    facts = {_words(name): _words(name.find_next("dd")) for name in soup(page).select("dl dt")}
    assert (facts["Target"], facts["Concerns"]) == (f"job/{held}", "incident/1")
    assert "Answers this incident" not in _panels(get("/audit/2").text)
    assert [link.text for link in soup(get("/audit?incident=1").text).select("th a")] == ["1"]
    assert "job.retry" in get("/lifeline/incidents/1").text
    access.held.discard("lifeline.view")
    assert "Answers this incident" not in _panels(get("/audit/1").text)


def test_a_decision_about_an_incident_does_not_answer_it(
    get: Get, held: int, operator: BulkOperator
) -> None:
    operator.run("incident.acknowledge", ["incident/1"], params={"until": "2h"}, **WHY)
    page = get("/audit/1").text
    assert "Answers this incident" not in _panels(page)
    assert [link.text for link in soup(get("/audit?incident=1").text).select("th a")] == ["1"]


def test_an_operation_on_the_jobs_of_a_failure_answers_its_incident(
    get: Get, session: Session, operator: BulkOperator
) -> None:
    failure = make_failure(session)
    session.flush()
    make_incident(session, "failure_new", subject="failure", facts={"failure": failure.id})
    make_incident(session, "failure_new", subject="other", facts={"failure": failure.id + 1})
    make_job(session, "failed", ended_by="exhausted")
    session.commit()
    operator.start("job.retry", JobFilter(state="failed"), **WHY)
    operation = session.execute(
        text(
            "UPDATE opsjobs.operations SET state = 'draft', started_at = NULL, reason = NULL,"
            " query = jsonb_build_object('failure', :id ::text) RETURNING id"
        ),
        {"id": failure.id},
    ).scalar_one()
    session.commit()
    operator.start_draft(operation, **WHY)
    assert "Answers this incident" not in _panels(get("/audit/1").text)
    (row,) = _rows(_panels(get("/audit/2").text)["Answers this incident"])
    assert row.startswith("1 ")


# --- operations


def test_it_shows_its_operation_and_the_jobs_of_its_stage(
    get: Get,
    session: Session,
    operator: BulkOperator,
    access: Access,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = [make_job(session, "scheduled").id for _ in range(6)]
    session.commit()
    started = operator.start("job.cancel", JobFilter(state="scheduled"), **WHY)
    session.execute(text("UPDATE opsjobs.operations SET done = 4, skipped = 1"))
    session.execute(
        update(OperationRow).where(OperationRow.number <= 5).values(result="done", at=text("now()"))
    )
    session.execute(
        update(OperationRow).where(OperationRow.number == 2).values(result="skipped", code="gone")
    )
    make_event(
        session,
        actor="system",
        via="system",
        action="operation.stage",
        preview_id=None,
        previewed_at=None,
        subject=f"operation/{started.id}",
        targets=(f"operation/{started.id}",),
        before=None,
        after={"stage": 2, "rows": [2, 3]},
    )
    session.commit()
    panels = _panels(get("/audit/1").text)
    title = f"Operation {started.id}"
    assert "job.cancel of 6 jobs, started by ops-demo. It is running now: 5 handled, 1 left." in (
        _words(panels[title])
    )
    assert _rows(panels["What became of its jobs"])[0].startswith("scheduled 4 ")
    panels = _panels(get("/audit/2").text)
    # The other one of its two rows was skipped.
    (link,) = panels["What became of its job"].select("a")
    assert int(link.text) in ids
    monkeypatch.setattr(decision, "MOST_JOBS", 3)
    panel = _panels(get("/audit/1").text)["What became of its jobs"]
    assert _rows(panel)[0].startswith("scheduled 2 ")
    assert "only the first 3 rows of the operation were looked at" in _words(panel)
    access.held.discard("jobs.view")
    assert "What became of its jobs" not in _panels(get("/audit/1").text)


def test_undo_names_the_new_operation(get: Get, session: Session, operator: BulkOperator) -> None:
    make_job(session, "canceled")
    session.commit()
    started = operator.start("job.delete", JobFilter(state="canceled"), **WHY)
    session.execute(
        text(
            "UPDATE opsjobs.operations SET action = 'job.cancel', state = 'finished',"
            " ended_at = now(), done = 1"
        )
    )
    session.execute(text("UPDATE opsjobs.operation_rows SET result = 'done', at = now()"))
    session.commit()
    assert started.id is not None
    operator.undo_operation(started.id, **WHY)
    new = started.id + 1
    titles = [title for title in _panels(get("/audit/2").text) if title.startswith("Operation")]
    assert titles == [f"Operation {started.id}", f"Operation {new}"]
    assert [link.text for link in soup(get(f"/audit?operation={new}").text).select("th a")] == ["2"]


# --- what is hidden stays hidden


class _Policy(ShowAll):
    def clean_text(self, text: str) -> str:
        return text.replace("sesame", "[hidden]")

    def is_hidden_key(self, key: str) -> bool:
        return key == "pin"


def test_what_the_policy_hides_is_nowhere(
    make_app: Callable[..., Flask], session: Session, access: Access
) -> None:
    app = make_app(display=_Policy(), access=access)
    access.actor = "open sesame"
    job = make_job(session, "failed", ended_by="exhausted", task="sesame")
    session.flush()
    make_incident(session, "callback_failed", facts={"jobs": [job.id], "task": "sesame"})
    session.commit()
    client = app.test_client()
    shown = BulkOperator(app.extensions["opsjobs"]).preview(
        "job.retry", [f"job/{job.id}"], actor="open sesame", via="page"
    )
    client.post(
        f"/ops/jobs/previews/{shown.id}/execute",
        data={"token": shown.token, "reason": "say sesame to it"},
        headers={"Sec-Fetch-Site": "same-origin", "X-Request-ID": "sesame"},
    )
    access.actor = "tester"
    page = client.get("/ops/jobs/audit/1").text
    assert {"What the preview said", "Answers this incident"} <= set(_panels(page))
    assert "[hidden]" in page
    assert "sesame" not in page


def test_payload_of_a_preview_needs_its_permission(
    get: Get, session: Session, client: FlaskClient, operator: BulkOperator, access: Access
) -> None:
    access.actor = "ops-demo"
    make_event(session)
    session.commit()
    stored = (
        "INSERT INTO opsjobs.previews (id, actor, via, action, targets, params, plan, fingerprint,"
        " created_at, expires_at) SELECT preview_id, actor, 'page', 'cron.edit', '{cron/nightly}',"
        ' \'{"args": {"iban": "DE02"}}\', :plan ::jsonb, \'x\', previewed_at,'
        " previewed_at + interval '15 min' FROM opsjobs.audit_events"
    )
    plan = (
        '{"items": [{"target": "cron/nightly", "name": "nightly", "note": null, "changes":'
        ' [{"what": "args", "before": "{\\"iban\\": \\"DE01\\"}", "after": "{\\"iban\\": \\"DE02\\"}"}]}],'
        ' "skipped": [], "risk": "none", "facts": {"cron/nightly": {}}}'
    )
    session.execute(text(stored), {"plan": plan})
    session.commit()
    assert "DE02" in get("/audit/1").text
    access.denied.add(("payload.view", "cron/nightly"))
    page = get("/audit/1").text
    assert "DE01" not in page
    assert "DE02" not in page
    assert "needs payload.view" in page
