"""Who is told of an end: in the decided order, and when one of them fails nothing has ended."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

from flask_opsjobs import Limit, OpsJobs, Unique
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.cron import transitions as cron_transitions
from flask_opsjobs.cron.declaration import make_entry
from flask_opsjobs.cron.transitions import Slot
from flask_opsjobs.endings import after_end
from flask_opsjobs.endings.after_end import AFTER_END
from flask_opsjobs.engine.dispatch.dispatch import stage
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.enqueue import enqueue_detached
from tests.support import sources
from tests.support.engine import Bench

RETURNED = Outcome(kind="returned")
HANDED_BACK = Outcome(kind="not_run", error="not here", ended_by="unknown_task")
TABLES = ("jobs", "attempts", "unique_locks", "leases", "buckets", "cron_slots")

# What each of them writes, and the outcome after which it does.
WRITES = {
    after_end.release_unique_locks: ("DELETE ON opsjobs.unique_locks", "true", RETURNED),
    after_end.free_leases: ("DELETE ON opsjobs.leases", "true", RETURNED),
    after_end.give_back_tokens: ("UPDATE ON opsjobs.buckets", "true", HANDED_BACK),
    after_end.trim_hand_backs: ("DELETE ON opsjobs.attempts", "true", HANDED_BACK),
    after_end.note_cron_slots: ("UPDATE ON opsjobs.cron_slots", "true", RETURNED),
    after_end.release_cron_jobs: ("UPDATE ON opsjobs.jobs", "old.state = 'deferred'", RETURNED),
}


def test_the_order_is_the_decided_one() -> None:
    (page,) = sources.files("docs/decisions", "0034-*.md")
    decided = re.findall(r"^\d\. `(\w+)`", page.read_text(), re.MULTILINE)
    assert [told.__name__ for told in AFTER_END] == decided


@pytest.fixture
def job_id(opsjobs: OpsJobs, bench: Bench) -> int:
    """A started job for which each of them has something to do:
    unique, limited, of a cron entry, handed back before.
    """

    def call(text: str = "") -> None:
        """Takes a text."""

    limit = Limit("api", rate=1, per=3600, burst=5, concurrency=5)
    task = opsjobs.task(limit=limit, unique=Unique(until="ended"))(call)
    declare_limiters(bench.host, "test")
    connection, now = bench.connection, read_clock(bench.connection)
    cron_transitions.create(
        connection, make_entry(task, "@daily", name="daily"), "code", "test", now
    )
    entry = cron_transitions.read(connection, ["daily"])["daily"]
    made, lane = enqueue_detached(connection, bench.host, task, {}, cron_entry="daily")
    cron_transitions.write_result(connection, entry, Slot(now, "ran", job_id=made.id), now)
    enqueue_detached(
        connection, bench.host, task, {"text": "behind"}, cron_entry="daily", is_deferred=True
    )
    bench.dispatch(lane)
    bench.claim(made.id)
    bench.record(made.id, 1, HANDED_BACK)
    connection.execute("UPDATE opsjobs.jobs SET due_at = created_at WHERE id = %s", (made.id,))
    stage(connection, read_clock(connection))
    bench.dispatch(lane)
    bench.claim(made.id, 2)
    return made.id


def stored(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """All rows that an end may write."""
    return {name: bench.rows(f"SELECT * FROM opsjobs.{name} t ORDER BY t::text") for name in TABLES}


@pytest.mark.parametrize("told", AFTER_END)
def test_when_one_of_them_fails_nothing_has_ended(
    bench: Bench, job_id: int, told: after_end.AfterEnd
) -> None:
    event, when, outcome = WRITES[told]
    connection = bench.connection
    connection.execute(
        """CREATE FUNCTION opsjobs.break_write() RETURNS trigger LANGUAGE plpgsql
           AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$"""
    )
    connection.execute(
        f"""CREATE TRIGGER breaks BEFORE {event} FOR EACH ROW WHEN ({when})
            EXECUTE FUNCTION opsjobs.break_write()"""
    )
    before = stored(bench)
    with pytest.raises(psycopg.errors.RaiseException, match="broken"):
        bench.record(job_id, 2, outcome)
    assert stored(bench) == before
    connection.execute("DROP FUNCTION opsjobs.break_write() CASCADE")
    assert len(bench.record(job_id, 2, outcome)) == 1
    assert stored(bench) != before
