"""The bundle of a cron entry, which `ops-demo` pauses, and what its loop did not decide."""

from __future__ import annotations

import pytest

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.words import moment
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops import cron

from .conftest import WHY, Story, actions, texts


@pytest.fixture
def nightly(opsjobs: OpsJobs) -> None:
    """An entry that runs each minute, so that a test sees its slots."""

    def nightly_sync() -> None:
        """Does nothing."""

    opsjobs.cron("* * * * *", name="nightly_sync")(opsjobs.task(nightly_sync))


def test_an_entry_that_is_paused_is_told_whole(nightly: None, story: Story) -> None:
    bench = story.bench
    # So each minute that passes has one slot.
    story.stop_clock()
    story.run(cron.LOOP)
    log = ["Created: * * * * * in UTC"]
    story.later(60)
    story.run(cron.LOOP)
    (job,) = bench.rows("SELECT id FROM opsjobs.jobs")
    (slot,) = bench.rows("SELECT slot_at FROM opsjobs.cron_slots")
    log.append(f"Slot {moment(slot['slot_at'])}: ran, job {job['id']}")
    bench.dispatch()
    bench.claim(job["id"])
    bench.record(job["id"], 1, Outcome(kind="returned"))
    story.run(cron.LOOP)
    story.operator.run("cron.pause", ["cron/nightly_sync"], **WHY, now=story.now)
    log.append("ops-demo: pause")
    story.later(60)
    story.run(cron.LOOP)
    found = story.ask("cron/nightly_sync")
    said = [text for text in texts(found) if not text.startswith(f"Job {job['id']} ended")]
    (last,) = bench.rows("SELECT slot_at FROM opsjobs.cron_slots WHERE result = 'paused'")
    log.append(f"Slot {moment(last['slot_at'])}: paused")
    # The story's clock runs ahead of Postgres' own, which the audit takes.
    assert sorted(said) == sorted(log)
    assert (found.completeness, found.state) == ("complete", "paused")
    assert found.diagnosis.startswith("ops-demo paused it at ")
    assert WHY["reason"] in found.diagnosis
    assert "cron.resume" in actions(found)
    assert "cron.pause" not in actions(found)


def test_slots_that_no_loop_decided_are_not_known(nightly: None, story: Story) -> None:
    story.run(cron.LOOP)
    story.later(60, without=("cron",))
    found = story.ask("cron/nightly_sync")
    assert found.completeness == "partial evidence"
    assert [lack.says for lack in found.lacking] == ["What becomes of its slots is not decided."]


def test_a_deleted_entry_is_told_from_its_run_history(nightly: None, story: Story) -> None:
    policies = dict.fromkeys(("zone", "overlap", "catch_up", "args"))
    entry = {"task": "nightly_sync", "expression": "0 3 * * *", **policies}
    story.operator.create_cron("mine", entry, **WHY)
    story.operator.run_cron_now("mine", **WHY)
    story.operator.delete_cron("mine", **WHY)
    found = story.ask("cron/mine")
    assert (found.completeness, found.paths) == ("history unavailable", [])
    said = texts(found)
    assert {"ops-demo: create", "ops-demo: run now", "ops-demo: delete"} < set(said)
    (slot,) = [text for text in said if text.startswith("Slot ")]
    assert "manual by ops-demo, job 1" in slot
    story.operator.cancel(1, **WHY)
    story.run(cron.LOOP)
    story.retain(days=story.bench.host.settings.keep_slots_days + 1)
    later = story.ask("cron/mine")
    assert later.completeness == "history unavailable"
    assert set(texts(later)) == set(said) - {slot}
    assert story.ask("cron/nothing").completeness == "unknown"
