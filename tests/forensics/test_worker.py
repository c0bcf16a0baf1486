"""The bundle of a worker: alive, silent while nobody looks, given up, and after its row is removed."""

from __future__ import annotations

from flask_opsjobs.loops import detect
from flask_opsjobs.workers import transitions as workers

from .conftest import WHY, Story, actions, texts

NAME = "worker-1"


def test_a_worker_that_is_asked_to_leave_and_stops_is_told_whole(story: Story) -> None:
    log = ["Began on here, for default"]
    story.later(20)
    story.beat()
    log.append("Last heartbeat")
    alive = story.ask(f"worker/{NAME}")
    assert (texts(alive), alive.completeness) == (log, "complete")
    assert alive.diagnosis == "It is alive, and it has 0 jobs."
    assert actions(alive) == ["worker.drain", "worker.stop"]
    story.operator.run("worker.drain", [f"worker/{NAME}"], **WHY)
    story.later(10)
    workers.stop(story.bench.connection, story.bench.worker_id, story.now)
    found = story.ask(f"worker/{NAME}")
    said = texts(found)
    assert said[:1] + said[-1:] == [log[0], "Stopped"]
    assert {"ops-demo: drain", "ops-demo asked it to leave", "Last heartbeat"} < set(said)
    assert len(said) == 5
    assert (found.completeness, found.state) == ("complete", "stopped")
    assert actions(found) == ["worker.forget"]


def test_a_worker_that_nobody_watched_is_partial(story: Story) -> None:
    story.later(60, without=("watch",))
    found = story.ask(f"worker/{NAME}")
    assert found.completeness == "partial evidence"
    assert [lack.says for lack in found.lacking] == ["Whether it lived is not known."]
    assert "It has sent no heartbeat since" in found.diagnosis


def test_a_worker_that_was_given_up_is_partial_and_its_row_is_removed_after_a_week(
    story: Story,
) -> None:
    story.watch_for(story.bench.host.settings.missing_seconds + 20)
    story.run(detect.LOOP)
    lost = story.ask(f"worker/{NAME}")
    assert (lost.state, lost.completeness) == ("missing", "partial evidence")
    assert texts(lost)[:3] == ["Began on here, for default", "Last heartbeat", "Counted as missing"]
    (incident,) = [each for each in lost.related if each.how == "Incident"]
    story.retain(days=8)
    gone = story.ask(f"worker/{NAME}")
    assert (gone.completeness, gone.state) == ("history unavailable", None)
    assert [event.subject for event in gone.timeline.events] == [incident.subject]
    assert story.ask("worker/nobody").completeness == "unknown"
