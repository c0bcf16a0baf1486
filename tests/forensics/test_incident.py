"""The bundle of an incident that real passes found: its repairs, its evidence, and what is removed."""

from __future__ import annotations

from datetime import timedelta

from flask_opsjobs.loops import detect

from .conftest import WHY, Story, actions, texts


def _lose_the_worker(story: Story) -> str:
    """Let the worker die, and the detector find it; the incident as a subject."""
    story.watch_for(story.bench.host.settings.missing_seconds + 20)
    story.run(detect.LOOP)
    row = story.bench.row("SELECT id FROM opsjobs.incidents WHERE class = 'worker_missing'")
    return f"incident/{row['id']}"


def test_an_incident_that_is_acknowledged_and_clears_is_told_whole(story: Story) -> None:
    incident = _lose_the_worker(story)
    found = story.ask(incident)
    assert found.completeness == "complete", found.lacking
    assert "Began" in texts(found)
    assert "Worker worker-1 was counted as missing" in texts(found)
    assert actions(found)[0] == "worker.forget"  # its repair stands first
    assert {"incident.acknowledge"} < set(actions(found))
    (follow_up,) = [path for path in found.paths if path.kind == "follow_up"]
    assert (follow_up.owner, follow_up.status) == ("host-owned follow-up", "unconfigured")
    until = (story.now + timedelta(hours=2)).isoformat()
    story.operator.run("incident.acknowledge", [incident], params={"until": until}, **WHY)
    known = story.ask(incident)
    assert texts(known).count("ops-demo: acknowledge") == 1
    assert "ops-demo acknowledged it" in known.diagnosis


def test_an_incident_that_nobody_looks_at_any_more_is_partial(story: Story) -> None:
    incident = _lose_the_worker(story)
    story.later(60, without=("detect",))
    found = story.ask(incident)
    assert found.completeness == "partial evidence"
    assert [lack.says for lack in found.lacking] == ["Whether it was still so is not known."]


def test_evidence_and_then_the_incident_are_removed(story: Story) -> None:
    incident = _lose_the_worker(story)
    keep = story.bench.host.settings.keep_incidents_days
    story.retain(days=keep + 1)
    found = story.ask(incident)
    assert found.completeness == "history unavailable"
    assert any(lack.is_removed for lack in found.lacking)
    number = int(incident.partition("/")[2])
    assert story.ask(f"incident/{number + 1}").completeness == "unknown"
