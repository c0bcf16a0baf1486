"""Failed attempts are counted once each, to the time at which they ended, into failures with bounds."""

from __future__ import annotations

import threading
from datetime import UTC, timedelta
from typing import Any

import pytest

from flask_opsjobs import endings
from flask_opsjobs.failures import count
from flask_opsjobs.failures.count import HELD_FOR, NEW_PER_HOUR
from flask_opsjobs.failures.transitions import lock
from flask_opsjobs.jobs.failure_key import key_of_others
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.conftest import MakeBench
from tests.support.waiting import wait_until

from .conftest import FailureBench, make_key


def numbers(failing: FailureBench, table: str, column: str) -> list[tuple[Any, int]]:
    rows = failing.bench.rows(f"SELECT {column}, number FROM opsjobs.{table} ORDER BY 1")
    return [(row[column], row["number"]) for row in rows]


def test_each_attempt_is_counted_once(failing: FailureBench) -> None:
    jobs = [failing.fail(key) for key in "aab"]
    assert failing.count() == 3
    assert failing.count() == 0
    first, second = failing.failures()
    assert [(first["number"], first["jobs"]), (second["number"], second["jobs"])] == [
        (2, 2),
        (1, 1),
    ]
    assert first["key"].hex() == make_key("a")
    assert (first["type"], first["title"], first["state"]) == (
        "ValueError",
        "ValueError: a 7",
        "open",
    )
    assert (first["sample_job_id"], first["sample_dispatch_no"]) == (jobs[1], 1)
    assert (first["first_deploy"], first["last_deploy"]) == (None, None)
    jobs.append(failing.fail("a"))
    assert failing.count() == 1
    assert failing.failures()[0]["number"] == 3
    assert failing.failures()[0]["sample_job_id"] == jobs[-1]


def test_an_attempt_that_is_tried_again_ends_no_job(failing: FailureBench) -> None:
    failing.fail(max_attempts=2)
    failing.count()
    row = failing.failure()
    assert (row["number"], row["jobs"], row["job_failed_at"]) == (1, 0, None)


def test_what_did_not_fail_is_not_counted(failing: FailureBench) -> None:
    failing.fail(kind="returned", error=None, failure_key=None)
    failing.fail(kind="snoozed", error=None, failure_key=None)
    assert failing.count() == 0
    assert failing.failures() == []


def test_a_late_flush_counts_to_its_time(failing: FailureBench) -> None:
    failing.fail()
    failing.count()
    before = failing.failure()
    late = failing.fail(ago=timedelta(hours=3))
    failing.count()
    after = failing.failure()
    assert after["number"] == 2
    assert after["last_at"] == before["last_at"]
    assert after["first_at"] < before["first_at"] - timedelta(hours=2)
    assert after["sample_job_id"] == before["sample_job_id"] != late
    attempts = failing.bench.rows("SELECT ended_at FROM opsjobs.attempts ORDER BY ended_at")
    minutes = [row["ended_at"].replace(second=0, microsecond=0) for row in attempts]
    assert numbers(failing, "failure_minutes", "minute") == [(minute, 1) for minute in minutes]
    hours = [minute.astimezone(UTC).replace(minute=0) for minute in minutes]
    assert numbers(failing, "failure_hours", "hour") == [(hour, 1) for hour in hours]


def test_values_that_differ_leave_the_title(failing: FailureBench) -> None:
    for number in (7, 8):
        failing.fail(error=f"ValueError: 'ada' in line {number}")
        failing.count()
    assert failing.failure()["title"] == "ValueError: 'ada' in line …"


@pytest.mark.usefixtures("hiding")
def test_what_pages_hide_is_not_in_the_title(failing: FailureBench) -> None:
    url = "https://ada:sesame-{}@mail.example.com"
    failing.fail(error=f"ConnectionError: no answer from {url.format(1)} in 5 s")
    failing.count()
    title = "ConnectionError: no answer from https://[hidden]@mail.example.com in 5 s"
    assert failing.failure()["title"] == title
    failing.fail(error=f"ConnectionError: no answer from {url.format(2)} in 6 s")
    failing.count()
    assert failing.failure()["title"] == title.replace("5 s", "… s")
    # A secret is not cut in two before it is looked for.
    failing.fail("long", error=f"ValueError: {'x' * 170} {url.format(3)}")
    failing.count()
    long = failing.failures()[1]["title"]
    assert len(long) == 200
    assert "ada" not in long


@pytest.mark.usefixtures("hiding")
def test_a_title_that_was_stored_before_is_hidden_when_it_fails_again(
    failing: FailureBench,
) -> None:
    error = "ValueError: no answer from https://ada:sesame@mail.example.com"
    failing.fail(error=error)
    failing.count()
    failing.bench.rows("UPDATE opsjobs.failures SET title = %s RETURNING 1", error)
    failing.fail(error=error)
    failing.count()
    title = "ValueError: no answer from https://[hidden]@mail.example.com"
    assert failing.failure()["title"] == title


def test_deaths_are_named_and_summed_by_task(failing: FailureBench) -> None:
    for peak in (700, 900):
        failing.fail(
            "oom",
            kind="died",
            error="its process died: killed by SIGKILL",
            death="out_of_memory",
            death_facts={"limit_kb": 512},
            max_rss_kb=peak,
        )
    failing.count()
    row = failing.failure()
    assert (row["title"], row["type"], row["raised_in"]) == ("died: out of memory", None, None)
    (death,) = failing.bench.rows("SELECT * FROM opsjobs.task_deaths")
    assert (death["death"], death["number"]) == ("out_of_memory", 2)
    assert (death["peak_kb"], death["limit_kb"]) == (900, 512)
    assert death["day"] == row["last_at"].astimezone(UTC).replace(
        hour=0, minute=0, second=0, microsecond=0
    )


def test_a_task_makes_only_so_many_new_failures_in_an_hour(
    failing: FailureBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count, "NEW_PER_HOUR", 3)
    jobs = [failing.fail(f"bug {number}") for number in range(5)]
    now = failing.now
    failing.count(now)
    *_, other = failing.failures()
    task = other["task"]
    assert len(failing.failures()) == 4
    assert (other["key"].hex(), other["number"]) == (key_of_others(task), 2)
    assert (other["type"], other["raised_in"]) == (None, None)
    assert other["title"].startswith("other failures")
    # The attempts are found by the key under which they were counted.
    assert failing.bench.attempt(jobs[4])["failure_key"] == other["key"]
    failing.fail("bug 0")
    failing.fail("bug 9")
    failing.count(now)
    assert [row["number"] for row in failing.failures()] == [2, 1, 1, 3]
    failing.fail("bug 10")
    failing.count(now + timedelta(hours=1))
    assert len(failing.failures()) == 5


def test_known_failures_and_others_are_locked_in_id_order(
    failing: FailureBench, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator has locked "other", the older row, and wants the newer one next, as the order is."""
    monkeypatch.setattr(count, "NEW_PER_HOUR", 0)
    failing.fail("bug 1")
    now = failing.now
    failing.count(now)
    monkeypatch.setattr(count, "NEW_PER_HOUR", 1)
    failing.fail("bug 2")
    failing.count(now + timedelta(hours=1))
    others, known = failing.failures()
    assert (others["type"], others["id"] < known["id"]) == (None, True)
    failing.fail("bug 2")
    failing.fail("bug 3")  # one of others
    operator, watcher = make_bench(), make_bench()
    counting = threading.Thread(target=failing.count, args=[now + timedelta(hours=1)])
    with operator.connection.transaction():
        lock(operator.connection, [others["id"]])
        counting.start()
        waits = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        pid = failing.bench.connection.info.backend_pid
        wait_until(lambda: watcher.rows(waits, pid), what="that it waits for the operator")
        operator.rows(
            "SELECT id FROM opsjobs.failures WHERE id = %s FOR UPDATE NOWAIT", known["id"]
        )
    counting.join(20)
    assert [row["number"] for row in failing.failures()] == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("number", [20_000, pytest.param(100_000, marks=pytest.mark.variants)])
def test_many_types_are_bounded(failing: FailureBench, number: int) -> None:
    """A task that raises another type each time: 200 failures, and one for all others."""
    failing.bench.connection.execute(
        """INSERT INTO opsjobs.jobs (id, task, queue, lane, state, args, max_attempts, created_at, due_at,
               started_at, ended_at, ended_by, dispatch_no)
           SELECT n, 'wild', 'q', 'q', 'failed', '{}', 1, now(), now(), now(), now(), 'exhausted', 1
           FROM generate_series(1, %s) AS n""",
        [number],
    )
    failing.bench.connection.execute(
        """INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at, ended_at, outcome,
               error, failure_key)
           SELECT n, 1, 1, 'w', now(), now(), 'raised', 'Error' || n || ': no',
               '\\x01'::bytea || substr(sha256(n::text::bytea), 1, 15)
           FROM generate_series(1, %s) AS n""",
        [number],
    )
    now, passes = failing.now, 0
    while failing.count(now):
        passes += 1
    assert passes == number / count.MOST
    rows = failing.failures()
    assert len(rows) == NEW_PER_HOUR + 1
    assert sum(row["number"] for row in rows) == number
    (others,) = [row for row in rows if row["type"] is None]
    assert others["number"] == number - NEW_PER_HOUR


def resolve(failing: FailureBench, **fix: Any) -> None:
    columns = {"resolved_in": None, "resolved_after": None} | fix
    failing.bench.connection.execute(
        """UPDATE opsjobs.failures SET state = 'resolved', decided_at = clock_timestamp(), decided_by = 'ada',
           resolved_in = %(resolved_in)s, resolved_after = %(resolved_after)s""",
        columns,
    )


def test_new_code_regresses_and_old_code_does_not(failing: FailureBench) -> None:
    old, held = failing.start_worker(1), failing.start_worker(1)
    failing.fail(on=old)
    failing.count()
    resolve(failing, resolved_after=1)
    # Old code after the fix, and an old attempt that is flushed late.
    failing.fail(on=old)
    failing.fail(on=held, ago=timedelta(hours=1))
    failing.count()
    assert failing.failure()["state"] == "resolved"
    new = failing.start_worker(2)
    failing.fail(on=new)
    failing.count()
    row = failing.failure()
    assert (row["state"], row["regressed_in"]) == ("open", 2)
    assert row["regressed_at"] == row["last_at"]
    assert (row["decided_at"], row["resolved_after"]) == (None, None)
    assert (row["first_deploy"], row["last_deploy"], row["number"]) == (1, 2, 4)
    assert numbers(failing, "failure_deploys", "deploy_id") == [(1, 3), (2, 1)]
    deploys = {
        row["deploy_id"] for row in failing.bench.rows("SELECT deploy_id FROM opsjobs.attempts")
    }
    assert deploys == {1, 2}


def test_without_markers_a_worker_from_before_the_fix_does_not_regress(
    failing: FailureBench,
) -> None:
    old = failing.start_worker()
    failing.fail(on=old)
    failing.count()
    resolve(failing)
    failing.fail(on=old)
    failing.count()
    assert failing.failure()["state"] == "resolved"
    failing.fail(on=failing.start_worker())
    failing.count()
    row = failing.failure()
    assert (row["state"], row["regressed_in"]) == ("open", None)


@pytest.mark.parametrize("decision", ["ignored", "resolved"])
def test_a_decision_that_lapses_ends_the_regression_before_it(
    failing: FailureBench, decision: str
) -> None:
    """It failed in spite of a fix once. What was decided since then was no fix, and ended by itself."""
    failing.fail(on=failing.start_worker(1))
    failing.count()
    resolve(failing, resolved_after=1)
    failing.fail(on=failing.start_worker(2))
    failing.count()
    assert failing.failure()["regressed_in"] == 2
    if decision == "ignored":
        ignore(failing, ignored_until=failing.now)
    else:
        resolve(failing, resolved_after=2)
    failing.count(failing.now + HELD_FOR + timedelta(minutes=1))
    row = failing.failure()
    assert (row["state"], row["regressed_at"], row["regressed_in"]) == ("open", None, None)


def test_an_ignored_failure_is_counted_and_stays_ignored(failing: FailureBench) -> None:
    failing.fail()
    failing.count()
    ignore(failing, ignored_until=failing.now + timedelta(hours=1))
    failing.fail()
    failing.count()
    assert (failing.failure()["state"], failing.failure()["number"]) == ("ignored", 2)


def ignore(failing: FailureBench, **until: Any) -> None:
    columns = {"ignored_until": None, "ignored_until_number": None, "ignored_rate": None} | until
    failing.bench.connection.execute(
        """UPDATE opsjobs.failures SET state = 'ignored', decided_at = clock_timestamp(), decided_by = 'ada',
           ignored_until = %(ignored_until)s, ignored_until_number = %(ignored_until_number)s,
           ignored_rate = %(ignored_rate)s""",
        columns,
    )


def test_it_is_ignored_until_a_time(failing: FailureBench) -> None:
    failing.fail()
    failing.count()
    until = failing.now + timedelta(hours=1)
    ignore(failing, ignored_until=until)
    failing.count(until - timedelta(seconds=1))
    assert failing.failure()["state"] == "ignored"
    failing.count(until)
    row = failing.failure()
    assert (row["state"], row["ignored_until"], row["decided_by"]) == ("open", None, None)


def test_it_is_ignored_until_a_number(failing: FailureBench) -> None:
    failing.fail()
    failing.count()
    ignore(failing, ignored_until_number=3)
    failing.fail()
    failing.count()
    assert failing.failure()["state"] == "ignored"
    failing.fail()
    failing.count()
    assert failing.failure()["state"] == "open"


def test_it_is_ignored_until_a_rate(failing: FailureBench) -> None:
    for _ in range(3):
        failing.fail(ago=timedelta(hours=2))
    failing.count()
    ignore(failing, ignored_rate=1)
    failing.fail()
    failing.count()
    assert failing.failure()["state"] == "ignored"
    failing.fail()
    failing.count()
    assert failing.failure()["state"] == "open"


def test_a_fix_in_the_next_deploy_is_held_for_14_days(failing: FailureBench) -> None:
    failing.fail()
    failing.count()
    resolve(failing, resolved_after=0)
    failing.count(failing.now + HELD_FOR - timedelta(minutes=1))
    assert failing.failure()["state"] == "resolved"
    failing.count(failing.now + HELD_FOR + timedelta(minutes=1))
    assert failing.failure()["state"] == "open"


def test_a_deploy_that_came_keeps_it_resolved(failing: FailureBench) -> None:
    failing.fail()
    failing.count()
    resolve(failing, resolved_after=0)
    failing.bench.connection.execute(
        "INSERT INTO opsjobs.deploys (version, at, source) VALUES ('2', now(), 'command')"
    )
    failing.count(failing.now + 2 * HELD_FOR)
    assert failing.failure()["state"] == "resolved"


def test_a_pass_that_breaks_counts_nothing(
    failing: FailureBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing.fail()

    def broken(*_: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(count, "_mark", broken)
        with pytest.raises(RuntimeError):
            failing.count()
    assert failing.failures() == []
    assert failing.count() == 1
    assert failing.failure()["number"] == 1


def test_an_attempt_that_somebody_holds_is_counted_later(failing: FailureBench) -> None:
    job_id = failing.fail()
    holder = failing.start_worker()
    with holder.connection.transaction():
        holder.rows("SELECT 1 FROM opsjobs.attempts WHERE job_id = %s FOR UPDATE", job_id)
        assert failing.count() == 0
    assert failing.count() == 1


def test_a_failure_of_a_deleted_job_goes_with_it(failing: FailureBench) -> None:
    job_id = failing.fail()
    failing.bench.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", (job_id,))
    assert failing.count() == 0


def test_a_rescued_job_is_a_failure_too(failing: FailureBench) -> None:
    worker = failing.start_worker()
    job_id = failing._record_job(max_attempts=1)
    worker.dispatch(prefetch=10)
    worker.claim(job_id)
    endings.rescue(failing.bench.connection, [worker.worker_id], failing.now, "no heartbeat")
    failing.count()
    assert failing.failure()["title"] == "lost: vanished"


def test_an_outcome_without_an_error_has_a_title(failing: FailureBench) -> None:
    failing.fail(kind="retry_in", error=None, max_attempts=2)
    failing.count()
    assert failing.failure()["title"] == "retry_in"
    assert Outcome("retry_in").error is None
