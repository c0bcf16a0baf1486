"""Each class of incidents: it is found, its near misses are not, it clears and reopens.

The tables come from `DETECTORS`: a class without a case, or without a near miss, fails.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.words import moment
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.lifeline.detectors import DETECTORS, rq_dependents_stuck
from flask_opsjobs.lifeline.incidents import words_of
from flask_opsjobs.lifeline.queries import find_incident
from flask_opsjobs.lifeline.repairs import Repair, repairs_of
from tests.doctor.agreement import NOW, agree_on
from tests.lifeline import (
    detecting_audit,
    detecting_composition,
    detecting_escalations,
    detecting_failures,
    detecting_jobs,
    detecting_lanes,
    detecting_loops,
    detecting_operations,
    detecting_plain,
    detecting_redis,
)
from tests.lifeline.detecting import Case, Scene, near_miss_of
from tests.support.engine import Bench

CASES: dict[str, Case] = {
    "audit_broken": detecting_audit.AUDIT_BROKEN,
    "batch_overdue": detecting_composition.BATCH_OVERDUE,
    "callback_failed": detecting_composition.CALLBACK_FAILED,
    "code_missing": detecting_jobs.CODE_MISSING,
    "cron_missed": detecting_composition.CRON_MISSED,
    "delivery_lost": detecting_redis.DELIVERY_LOST,
    "escalation_failed": detecting_escalations.ESCALATION_FAILED,
    "failure_new": detecting_failures.NEW,
    "failure_regressed": detecting_failures.REGRESSED,
    "held_by_nobody": detecting_jobs.HELD_BY_NOBODY,
    "integrity_off": detecting_redis.INTEGRITY_OFF,
    "lane_starving": detecting_lanes.LANE_STARVING,
    "lease_leaked": detecting_jobs.LEASE_LEAKED,
    "loop_failing": detecting_loops.FAILING,
    "loop_silent": detecting_loops.SILENT,
    "operation_stopped": detecting_operations.OPERATION_STOPPED,
    "orphan_delivery": detecting_redis.ORPHAN_DELIVERY,
    "poison": detecting_jobs.POISON,
    "postgres_away": detecting_redis.POSTGRES_AWAY,
    "queue_unserved": detecting_jobs.QUEUE_UNSERVED,
    "redis_away": detecting_redis.REDIS_AWAY,
    "redis_lost": detecting_redis.REDIS_LOST,
    "retry_storm": detecting_jobs.RETRY_STORM,
    "rq_dependents_stuck": detecting_plain.RQ_DEPENDENTS_STUCK,
    "rq_orphan": detecting_plain.RQ_ORPHAN,
    "wait_overdue": detecting_composition.WAIT_OVERDUE,
    "worker_missing": detecting_jobs.WORKER_MISSING,
    "workflow_stuck": detecting_composition.WORKFLOW_STUCK,
}


def marks_of(class_: str, *more: str) -> list[pytest.MarkDecorator]:
    case = CASES.get(class_)
    starts_processes = case is not None and case.starts_processes
    return [getattr(pytest.mark, name) for name in (*more, *["processes"] * starts_processes)]


CLASSES = [pytest.param(class_, marks=marks_of(class_)) for class_ in DETECTORS]
# What a sleep means is decided for all classes in one place. These see jobs, Redis, workers, loops and runs.
SHOWN = ("delivery_lost", "loop_silent", "queue_unserved", "worker_missing", "workflow_stuck")
ASLEEP = [
    pytest.param(class_, marks=marks_of(class_, *(() if class_ in SHOWN else ("variants",))))
    for class_ in DETECTORS
]
NEAR_MISSES = [
    pytest.param(class_, name, id=f"{class_}: {name}", marks=marks_of(class_))
    for class_ in CASES
    for name in CASES[class_].near_misses
]


@pytest.fixture
def scene(bench: Bench, db: SQLAlchemy, note: Task, request: pytest.FixtureRequest) -> Scene:
    """What a case changes. `db` pushes the context of the app, in which hosts enqueue."""
    assert db.session is not None
    assert note.name == "note"
    class_ = request.getfixturevalue("class_")
    return Scene(bench, class_, request.getfixturevalue)


def passes_until(span: timedelta) -> int:
    return int(span / timedelta(seconds=5)) + 2


def test_each_class_has_a_case_and_a_near_miss() -> None:
    assert CASES.keys() == DETECTORS.keys()
    assert [class_ for class_, case in CASES.items() if not case.near_misses] == []


@pytest.mark.parametrize("class_", CLASSES)
def test_it_is_found_cleared_and_reopened(
    scene: Scene, class_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The overview's headline and the doctor say the same."""
    detector, case = DETECTORS[class_], CASES[class_]
    agreement = agree_on(scene, monkeypatch)
    agreement.is_silent()
    case.make(scene)
    scene.look(passes_until(detector.open_after))
    (found,) = scene.incidents()
    assert (found["state"], found["episode"]) == ("open", 1)
    assert found["opened_at"] <= scene.now
    words = words_of(class_, found["facts"])
    assert words.title
    assert words.why.endswith((".", "!")) or found["facts"].get("error")
    kinds = {row["kind"] for row in scene.bench.rows("SELECT kind FROM opsjobs.evidence")}
    assert kinds > {"opened"}, "an incident without evidence"
    agreement.tells(found)

    case.undo(scene)
    scene.look(passes_until(detector.quiet_after))
    (cleared,) = scene.incidents()
    assert (cleared["state"], cleared["resolved_by"]) == ("resolved", "cleared")
    agreement.is_silent(words.title)

    case.make(scene)
    scene.look(passes_until(detector.open_after))
    (again,) = scene.incidents()
    assert (again["id"], again["state"], again["episode"]) == (found["id"], "open", 2)


@pytest.mark.parametrize("class_", ASLEEP)
def test_a_look_after_a_sleep_clears_nothing(scene: Scene, class_: str) -> None:
    detector, case = DETECTORS[class_], CASES[class_]
    case.make(scene)
    scene.look(passes_until(detector.open_after))
    (before,) = scene.incidents()
    case.undo(scene)
    scene.look(5, after=max(detector.quiet_after.total_seconds() + 60, scene.longest_awake + 10))
    (found,) = scene.incidents()
    assert found["state"] == "open"
    assert found["missed_passes"] <= before["missed_passes"]


@pytest.mark.parametrize("class_", ["workflow_stuck"])
def test_a_run_that_contradicts_itself_is_stuck(scene: Scene, class_: str) -> None:
    run = detecting_composition.contradict(scene, 1)
    scene.look(passes_until(DETECTORS[class_].open_after) + 1)
    (found,) = scene.incidents()
    assert (found["state"], found["facts"]["workflow"]) == ("open", run)
    assert "edges keep it waiting" in words_of(class_, found["facts"]).why
    detecting_composition.contradict(scene, -1)
    scene.look(passes_until(DETECTORS[class_].quiet_after))
    (cleared,) = scene.incidents()
    assert (cleared["state"], cleared["resolved_by"]) == ("resolved", "cleared")


@pytest.mark.processes
@pytest.mark.parametrize("class_", ["worker_missing"])
def test_a_worker_that_was_killed_is_missing_until_it_is_forgotten(
    scene: Scene, class_: str
) -> None:
    worker = scene.get("children").flask("opsjobs", "worker", "mail")
    worker.wait_for("listens to", 60)
    name = scene.bench.row("SELECT name FROM opsjobs.workers WHERE 'mail' = ANY (queues)")["name"]
    scene.run("watch")
    scene.look(2)
    assert scene.incidents() == []
    worker.kill_all()
    scene.run("watch")
    scene.look(1)
    (found,) = scene.incidents()
    assert (found["subject"], found["severity"], found["state"]) == (
        f"worker/{name}",
        "notice",
        "open",
    )
    who: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}
    Operator(scene.bench.host).run("worker.forget", [f"worker/{name}"], **who)
    scene.wait(5 * 60)
    scene.run("detect")
    scene.look(passes_until(DETECTORS[class_].quiet_after))
    assert scene.incidents()[0]["state"] == "resolved"


@pytest.mark.parametrize("class_", ["integrity_off"])
def test_a_delivery_that_stays_nowhere_is_a_difference(scene: Scene, class_: str) -> None:
    """No loop recalls it here. Once Redis has it again, the check agrees."""
    job_id = scene.get("record_job")()
    scene.bench.dispatch(prefetch=10)
    saved = detecting_redis.take_away_deliveries(scene)
    scene.look(12)
    (found,) = scene.incidents()
    assert (found["state"], found["facts"]["difference"], found["facts"]["nowhere"]) == (
        "open",
        0,
        1,
    )
    assert "1 job queued, but not in Redis" in words_of(class_, found["facts"]).why
    detecting_redis.put_back_deliveries(scene, saved)
    scene.look(8)
    (cleared,) = scene.incidents()
    assert cleared["state"] == "resolved"
    assert scene.bench.job(job_id)["state"] == "queued"


@pytest.mark.parametrize("class_", ["failure_new", "failure_regressed"])
def test_the_incident_of_a_failure_does_not_hold_its_error(scene: Scene, class_: str) -> None:
    """It is payload: the page of the failure shows it to those who may see it."""
    CASES[class_].make(scene)
    scene.look(1)
    (found,) = scene.incidents()
    evidence = scene.bench.rows("SELECT facts FROM opsjobs.evidence")
    assert "account" not in f"{found['facts']} {words_of(class_, found['facts'])} {evidence}"
    (error,) = scene.bench.rows("SELECT title FROM opsjobs.failures")
    assert "account" in error["title"]


@pytest.mark.parametrize("class_", ["delivery_lost"])
def test_lost_deliveries_can_be_recalled_as_long_as_they_are_few(scene: Scene, class_: str) -> None:
    jobs = [scene.get("record_job")() for _ in range(3)]
    scene.bench.dispatch(prefetch=10)
    scene.get("redis_client").flushall()
    scene.look(3, after=6)
    (found,) = scene.incidents()
    (repair,) = repairs_of(class_, found["facts"])
    assert (repair.action, sorted(repair.targets)) == ("job.recall", [f"job/{job}" for job in jobs])
    assert repairs_of(class_, found["facts"] | {"has_more_jobs": True}) == [
        Repair("job.recall", ())
    ]


@pytest.mark.parametrize("class_", ["queue_unserved"])
def test_jobs_whose_deliveries_wait_in_redis_are_unserved_too(scene: Scene, class_: str) -> None:
    for _ in range(3):
        scene.get("record_job")(queue="mail")
    assert scene.bench.dispatch("mail", prefetch=2) == 2
    scene.look(passes_until(DETECTORS[class_].open_after))
    (found,) = scene.incidents()
    assert found["affected"] == 3
    assert words_of(class_, found["facts"]).why.startswith("3 jobs are due")


@pytest.mark.parametrize("class_", ["queue_unserved"])
def test_limited_jobs_of_a_queue_that_nobody_serves_are_counted(scene: Scene, class_: str) -> None:
    for number in range(5):
        job = scene.get("record_job")(queue="mail")
        limited = """UPDATE opsjobs.jobs SET limiter = 'api', partition = %s, weight = 1, lane = %s
            WHERE id = %s RETURNING id"""
        scene.bench.rows(limited, f"{number % 2}", f"mail|api|{number % 2}", job)
    scene.look(passes_until(DETECTORS[class_].open_after))
    (found,) = scene.incidents()
    assert found["affected"] == 5
    assert words_of(class_, found["facts"]).why.startswith("5 jobs are due")


@pytest.mark.parametrize("class_", ["worker_missing"])
def test_a_worker_that_ran_for_months_may_be_missing_too(scene: Scene, class_: str) -> None:
    CASES[class_].make(scene)
    scene.bench.rows(
        """UPDATE opsjobs.workers SET started_at = started_at - interval '100 days'
            WHERE state = 'missing' RETURNING id"""
    )
    scene.look(1)
    (found,) = scene.incidents()
    assert found["state"] == "open"


@pytest.mark.parametrize("class_", ["lane_starving"])
def test_lanes_that_their_limiters_hold_hide_no_starving_one(scene: Scene, class_: str) -> None:
    detecting_lanes.starve_behind_held(scene, 25)
    scene.look(passes_until(DETECTORS[class_].open_after))
    (found,) = scene.incidents()
    assert (found["state"], found["facts"]["limiter"]) == ("open", "api")
    CASES[class_].undo(scene)
    scene.look(passes_until(DETECTORS[class_].quiet_after))
    (cleared,) = scene.incidents()
    assert (cleared["state"], cleared["resolved_by"]) == ("resolved", "cleared")


@pytest.mark.parametrize(("jobs", "says"), [(100, "100 jobs"), (101, "100+ jobs")])
@pytest.mark.parametrize("class_", ["worker_missing"])
def test_a_missing_worker_that_left_more_jobs_than_are_listed_says_so(
    scene: Scene, class_: str, jobs: int, says: str
) -> None:
    for _ in range(jobs):
        scene.memory["job"] = detecting_jobs.start(scene)
    CASES[class_].make(scene)
    scene.look(1)
    (found,) = scene.incidents()
    assert f"It left {says}, which are started" in words_of(class_, found["facts"]).why
    with scene.get("app").app_context():
        row = find_incident(scene.get("db").session, found["id"])
    assert row is not None
    assert row.affects == says


@pytest.mark.parametrize("most", [2_000, 3])
@pytest.mark.parametrize("class_", ["rq_dependents_stuck"])
def test_all_that_wait_in_a_chain_are_counted(
    scene: Scene, class_: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repairs are for those that wait for the failed job itself."""
    monkeypatch.setattr(rq_dependents_stuck, "_MOST_BEHIND", most)
    first = detecting_plain.wait_in_a_chain(scene)
    scene.look(passes_until(DETECTORS[class_].open_after))
    (found,) = scene.incidents()
    direct = scene.bench.row("SELECT id FROM opsjobs.jobs WHERE rq_id = %s", first)["id"]
    assert (found["affected"], found["facts"]["jobs"]) == (min(most, 4), [direct])
    says = "4 plain jobs wait" if most > 4 else "3+ plain jobs wait"
    assert words_of(class_, found["facts"]).title.startswith(says)


@pytest.mark.parametrize("class_", ["batch_overdue"])
def test_a_closed_batch_says_since_when_its_oldest_member_waits(scene: Scene, class_: str) -> None:
    oldest = detecting_composition.close_with_members_of_two_ages(scene)
    scene.look(passes_until(DETECTORS[class_].open_after))
    (found,) = scene.incidents()
    assert f"due since {moment(oldest)}" in words_of(class_, found["facts"]).why


@pytest.mark.parametrize("class_", ["loop_failing"])
def test_failed_passes_that_each_take_long_are_counted(scene: Scene, class_: str) -> None:
    """A pass begins 20 s after the last one, because Redis lets it wait: more than three intervals."""
    detecting_loops.fail(scene, after=20)
    scene.look(1, after=1)
    (found,) = scene.incidents()
    assert (found["subject"], found["facts"]["failed"]) == ("loop/expire", 5)


@pytest.mark.parametrize(("class_", "name"), NEAR_MISSES)
def test_a_near_miss_stays_silent(
    scene: Scene, class_: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The overview's headline and the doctor are silent too."""
    with near_miss_of(CASES[class_], name, scene):
        scene.look(passes_until(DETECTORS[class_].open_after))
        if name not in NOW:
            agree_on(scene, monkeypatch).is_silent()
    assert scene.incidents() == []


def test_why_a_slot_was_missed_goes_on_the_sentence_that_names_it() -> None:
    """Its words are those of the slot, which begin small."""
    facts = {"cron": "nightly", "slots": 1, "last_at": "2026-11-28T21:30:00+00:00"}
    why = words_of("cron_missed", facts | {"why": "the cron loop did not run"}).why
    assert why == "The last one was 2026-11-28 21:30:00 UTC: the cron loop did not run."
