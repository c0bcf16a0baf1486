"""Of each trouble that an incident tells of too, the doctor, the incident and the overview say the same."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from flask_opsjobs.doctor.registry import CHECKS
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.lifeline.detectors import DETECTORS
from flask_opsjobs.lifeline.incidents import words_of
from flask_opsjobs.overview.headline import find_wrong
from flask_opsjobs.overview.queries import find_overview
from tests.doctor.conftest import Ask
from tests.lifeline.detecting import Scene, near_miss_of
from tests.lifeline.test_detectors import CASES, passes_until
from tests.support.engine import Bench

CLASSES = {
    "leases.leaked": "lease_leaked",
    "lifeline.operations": "operation_stopped",
    "lifeline.callbacks": "callback_failed",
    "audit.tail": "audit_broken",
}
NEAR_MISSES = [
    (check, name) for check, class_ in CLASSES.items() for name in CASES[class_].near_misses
]


@pytest.fixture
def scene(
    check: str, bench: Bench, db: SQLAlchemy, note: Task, request: pytest.FixtureRequest
) -> Scene:
    """What a case of the incidents changes."""
    assert db.session is not None
    assert note.name == "note"
    return Scene(bench, CLASSES.get(check, "lease_leaked"), request.getfixturevalue)


def _headline(scene: Scene) -> list[str]:
    host = scene.bench.host
    with Session(host.engine) as session:
        seen = find_overview(session, scene.now, host.settings.late_seconds)
        return [wrong.fact for wrong in find_wrong(seen)]


@pytest.mark.parametrize("check", CLASSES)
def test_they_agree(check: str, scene: Scene, ask: Ask) -> None:
    assert ask(check).state == "ok"
    CASES[scene.class_].make(scene)
    found = ask(check)
    assert found.state in CHECKS[check].levels
    scene.look(passes_until(DETECTORS[scene.class_].open_after))
    (incident,) = scene.incidents()
    words = words_of(scene.class_, incident["facts"])
    assert found.sentence == f"{words.title}."
    assert found.evidence.startswith(words.why)
    assert found.sentence in _headline(scene)


@pytest.mark.parametrize(("check", "name"), NEAR_MISSES)
def test_what_looks_like_it_stays_silent(check: str, name: str, scene: Scene, ask: Ask) -> None:
    with near_miss_of(CASES[scene.class_], name, scene):
        assert ask(check).state == "ok"


@pytest.mark.parametrize("check", ["lifeline.incidents"])
def test_an_incident_that_is_open_for_an_hour(check: str, scene: Scene, ask: Ask) -> None:
    CASES[scene.class_].make(scene)
    scene.look(passes_until(DETECTORS[scene.class_].open_after))
    assert ask(check).state == "ok"
    values: list[Any] = [timedelta(hours=2, minutes=30)]
    scene.bench.connection.execute(
        "UPDATE opsjobs.incidents SET opened_at = opened_at - %s, first_at = first_at - %s",
        values * 2,
    )
    found = ask(check)
    assert (found.state, found.run) == ("warning", "flask opsjobs incident show 1")
    title = words_of(scene.class_, scene.incidents()[0]["facts"]).title
    assert found.sentence == f"Incident 1 is open for 2 h: {title}."


@pytest.mark.parametrize("check", ["lifeline.retention"])
def test_jobs_that_are_kept_too_long(check: str, scene: Scene, ask: Ask) -> None:
    job = scene.get("record_job")()
    ended = (
        "UPDATE opsjobs.jobs SET state = 'canceled', ended_by = 'canceled', ended_at = now() - %s"
    )
    scene.bench.connection.execute(f"{ended} WHERE id = %s", [timedelta(days=14, hours=12), job])
    assert ask(check).state == "ok"
    scene.bench.connection.execute(f"{ended} WHERE id = %s", [timedelta(days=17, hours=1), job])
    found = ask(check)
    assert (found.state, found.sentence) == (
        "warning",
        "Canceled jobs are kept 3 d longer than the settings say.",
    )
