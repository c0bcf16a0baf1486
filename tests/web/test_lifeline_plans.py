"""The reads of Lifeline and of an incident's page walk the indexes of incidents, whatever has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.support.database import Databases
from tests.support.plans import Plans, app_on

# By one INSERT each: only plans are asked of these rows. One in 200 incidents is active.
_FILL = """
INSERT INTO opsjobs.incidents (class, subject, fingerprint, severity, state, episode, first_at, opened_at,
    seen_at, facts, resolved_at, resolved_by)
SELECT 'loop_failing', 'loop/' || n, 'loop_failing:loop/' || n, 'warning',
    CASE WHEN n % 200 = 0 THEN 'open' ELSE 'resolved' END, 1, now() - n * interval '3 min',
    now() - n * interval '3 min', now(), '{"loop": "x", "process": "p", "failed": 5, "error": "e"}',
    CASE WHEN n % 200 <> 0 THEN now() - n * interval '2 min' END,
    CASE WHEN n % 200 <> 0 THEN 'cleared' END
FROM generate_series(1, 30000) n;
UPDATE opsjobs.incidents SET class = 'loop_silent', facts = facts || '{"last_at": "2026-11-26T20:00:00Z"}'
WHERE id > 29997;
UPDATE opsjobs.incidents SET severity = 'critical' WHERE id BETWEEN 29993 AND 29996;
INSERT INTO opsjobs.evidence (incident_id, episode, kind, first_at, last_at, source)
SELECT id, 1, 'opened', opened_at, opened_at, 'detect' FROM opsjobs.incidents;
INSERT INTO opsjobs.loop_runs (loop, process, started_at, last_at, every_seconds)
SELECT 'loop_' || n % 7, 'p', now() - n * interval '10 min', now() - n * interval '10 min', 1
FROM generate_series(1, 20000) n
"""


class _IncidentPlans(Plans):
    about = "opsjobs.incidents"


class _EvidencePlans(Plans):
    about = "opsjobs.evidence"


class _LoopPlans(Plans):
    about = "opsjobs.loop_runs"


def _fill(session: Session) -> None:
    for statement in _FILL.split(";"):
        session.execute(text(statement))
    session.commit()
    session.execute(text("ANALYZE opsjobs.incidents, opsjobs.evidence, opsjobs.loop_runs"))


@pytest.fixture(scope="module")
def filled(databases: Databases) -> Iterator[Flask]:
    """A host with 30,000 incidents and 20,000 stretches of loops."""
    with app_on(databases, _fill) as app:
        yield app


@pytest.mark.parametrize(
    ("path", "indexes"),
    [
        ("", {"incidents_active", "incidents_to_retain"}),
        ("?state=ended", {"incidents_active", "incidents_by_opening"}),
        ("?state=ended&class=loop_silent", {"incidents_active", "incidents_by_class"}),
        ("?state=ended&severity=critical", {"incidents_active", "incidents_by_severity"}),
        ("/incidents/200", {"incidents_pkey", "incidents_active"}),
    ],
)
def test_a_page_walks_the_indexes_of_incidents(filled: Flask, path: str, indexes: set[str]) -> None:
    host = filled.extensions["opsjobs"]
    client = filled.test_client()
    with _IncidentPlans(host.pages) as plans:
        assert client.get(f"/ops/jobs/lifeline{path}").status_code == 200
    assert indexes <= plans.indexes, plans
    scanned = [
        node
        for _, nodes in plans.seen
        for node in nodes
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "incidents"
    ]
    assert scanned == [], plans
    # Those of one day that ended, and as many as are counted.
    assert plans.most_rows <= 1_001, plans


def test_evidence_is_read_by_its_incident(filled: Flask) -> None:
    with _EvidencePlans(filled.extensions["opsjobs"].pages) as plans:
        filled.test_client().get("/ops/jobs/lifeline/incidents/200")
    assert plans.indexes == {"evidence_of_incident"}, plans
    assert plans.most_rows <= 2, plans


def test_the_stretches_of_a_day_are_read_by_loop(filled: Flask) -> None:
    with _LoopPlans(filled.extensions["opsjobs"].pages) as plans:
        filled.test_client().get("/ops/jobs/lifeline/live")
    assert plans.indexes == {"loop_runs_latest"}, plans
    assert "Seq Scan" not in plans.kinds, plans
    # A stretch each 10 minutes in a day.
    assert plans.most_rows <= 150, plans
