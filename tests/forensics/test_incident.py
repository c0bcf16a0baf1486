"""The bundle of an incident that real passes found: its repairs, its evidence, and what is removed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from flask_opsjobs.host import Host
from flask_opsjobs.loops import detect
from tests.escalations.telling import Teller

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


class _Answers:
    """An escalation policy of a host."""

    def escalate(self, facts: Mapping[str, Any]) -> str | None:
        if facts["class"] == "queue_unserved":
            return "OPS-2294"
        raise RuntimeError("the pager is away")


def test_a_follow_up_of_the_host_says_what_came_of_the_call(story: Story, host: Host) -> None:
    teller = Teller(host)
    try:
        host.escalation = None
        silent = teller.find()
        teller.once()
        assert _follow_up(story, silent) == (
            "unconfigured",
            "The application has no escalation policy.",
        )
        teller.clear()
        host.escalation = _Answers()
        told = teller.find(subject="queue/other", facts=_facts(teller, "other"))
        teller.look()
        status, says = _follow_up(story, told)
        assert (status, says.endswith("reference OPS-2294.")) == ("invoked", True)
        found = story.ask(f"incident/{told}")
        assert "Escalation, opened: invoked, reference OPS-2294" in texts(found)
        # A queue's bundle tells of its own incident.
        assert _follow_up(story, told, "queue/other")[0] == "invoked"
    finally:
        teller.close()


def _facts(teller: Teller, queue: str) -> dict[str, Any]:
    return {"queue": queue, "number": 3, "due_at": teller.now.isoformat()}


def _follow_up(story: Story, incident: int, subject: str = "") -> tuple[str | None, str]:
    found = story.ask(subject or f"incident/{incident}")
    (path,) = [path for path in found.paths if path.kind == "follow_up"]
    assert path.owner == "host-owned follow-up"
    return path.status, path.says
