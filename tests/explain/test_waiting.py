"""Many jobs are explained together as each of them is alone: generated mixes of states and reasons.

Each test of one job in this folder requires the same of all jobs of its database: see `look` in conftest.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.explain_with_redis import explain_search_apart, explain_waiting
from flask_opsjobs.engine.redis.broker import broker_of
from flask_opsjobs.explain import waiting
from flask_opsjobs.explain.reason_kinds import REASON_KINDS
from flask_opsjobs.explain.waiting import WaitingExplanation
from flask_opsjobs.jobs.lifecycle import WAITING
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.search import further_queries, group_queries, waiting_queries
from flask_opsjobs.jobs.search.filter import JobFilter
from flask_opsjobs.jobs.search.hit_queries import find_hits
from tests.conftest import MakeBench
from tests.explain.conftest import Look, require_same_for_many, wake_loops
from tests.explain.test_reasons import Scene
from tests.support.engine import Bench, forget_tasks, take
from tests.web.rows import make_batch

RecordJob = Callable[..., int]
WHY: dict[str, Any] = {"actor": "ops-demo", "reason": "the vendor asked us to hold"}


@pytest.fixture
def scene(
    bench: Bench, record_job: RecordJob, redis_client: Redis, look: Look, make_bench: MakeBench
) -> Scene:
    return Scene(bench, record_job, redis_client, look, make_bench)


QUEUES = ("default", "mail", "reports")
LIMITS: tuple[dict[str, Any], ...] = (
    {"limiter": "full", "concurrency": 2},
    {"limiter": "slow", "rate": 2, "per": 3600},
    {"limiter": "cool", "concurrency": 3, "weight": 2},
    {"limiter": "free", "rate": 100, "per": 1},
)
OUTCOMES = (
    Outcome("not_run", "no task 'note' is declared here", ended_by="unknown_task"),
    Outcome(kind="raised", error="Boom", delay_seconds=60),
    Outcome(kind="returned"),
    None,  # it runs
)


def _fill(scene: Scene, chance: random.Random) -> None:
    """Jobs in all states that wait, by what really makes them."""
    bench = scene.bench
    for number in range(14):
        deadline = chance.choice([None, None, timedelta(seconds=20), timedelta(hours=1)])
        delay = chance.choice([0, 0, 0, 5, 60, 3600])
        scene.record(queue=QUEUES[number % 3], deadline=deadline, delay=delay)
    for limit in LIMITS:
        forget_tasks(bench.host)
        for _ in range(chance.randrange(2, 6)):
            scene.record_limited(delay=chance.choice([0, 0, 30]), **limit)
    if chance.random() < 0.7:
        bench.dispatch(prefetch=chance.randrange(1, 5))
    if chance.random() < 0.5:
        bench.dispatch_all()
    queued = bench.rows("SELECT id, dispatch_no FROM opsjobs.jobs WHERE state = 'queued'")
    for job in chance.sample(queued, min(len(queued), 4)):
        bench.claim(job["id"])
        outcome = chance.choice(OUTCOMES)
        if outcome and bench.job(job["id"])["state"] == "started":
            bench.record(job["id"], job["dispatch_no"], outcome)
    if chance.random() < 0.5:
        take(bench)


def _decide(scene: Scene, chance: random.Random) -> None:
    """What an operator did, and what was lost."""
    queue = chance.choice(QUEUES)
    match chance.randrange(5):
        case 0:
            scene.operator.pause(queue, **WHY)
        case 1:
            scene.operator.drain(queue, **WHY)
        case 2:
            scene.operator.set_prefetch(queue, 1, **WHY)
        case 3:
            scene.operator.cooldown("cool", 60, **WHY)
        case 4:
            scene.redis.ltrim(broker_of(scene.bench.host).queue("default").key, 1, -1)
            scene.bench.connection.execute(
                "UPDATE opsjobs.jobs SET dispatched_at = dispatched_at - interval '6 s'"
                " WHERE state = 'queued' AND id % 2 = 0"
            )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_many_say_what_each_says(seed: int, scene: Scene) -> None:
    chance = random.Random(seed)
    _fill(scene, chance)
    for _ in range(chance.randrange(3)):
        _decide(scene, chance)
    if seed % 2:
        scene.operator.pause_task("note", **WHY)
    bench = scene.bench
    for seconds in (0, 25):
        now = read_clock(bench.connection) + timedelta(seconds=seconds)
        wake_loops(bench, now, *chance.sample(["stage", "dispatch", "expire"], 1))
        with Session(bench.host.engine) as session:
            found = require_same_for_many(bench, session, now)
        assert found.number >= 14
        codes = {group.code for group in found.groups}
        assert len(codes) >= 3
        assert ("task_paused" in codes) == bool(seed % 2)


def _of(found: WaitingExplanation) -> list[tuple[int, str]]:
    return [(group.number, group.says) for group in found.groups]


def test_groups_say_who_and_until_when_and_lead_to_their_jobs(scene: Scene) -> None:
    paused = [scene.record(queue="mail") for _ in range(3)]
    later = [scene.record(delay=60), scene.record(delay=3600)]
    scene.operator.pause("mail", **WHY)
    scene.look(later[0])
    found = explain_search_apart(scene.bench.host, JobFilter())
    assert found.says == "5 jobs wait."
    assert _of(found) == [(3, "queue mail is paused"), (2, "they are due later")]
    mail, due = found.groups
    assert (mail.by, mail.quote, mail.passes) == ("ops-demo", WHY["reason"], False)
    assert mail.since == scene.bench.row("SELECT paused_at FROM opsjobs.queues")["paused_at"]
    assert mail.example == paused[0]
    assert mail.search == JobFilter(state="available")
    times = [scene.bench.job(job_id)["due_at"] for job_id in later]
    assert [due.until, due.last_until] == times
    assert due.search is not None
    assert due.search.box == "state:scheduled"
    assert waiting.say_times(due).startswith(", the first until 20")
    until = due.until.replace(microsecond=1) if due.until else None
    at_once = replace(due, until=until, last_until=until and until.replace(microsecond=2))
    assert waiting.say_times(at_once).startswith(", until 20")
    # Another job that is available: now the queue tells them apart.
    scene.record()
    mail, *_ = explain_search_apart(scene.bench.host, JobFilter()).groups
    assert mail.search == JobFilter(state="available", queue="mail")
    # Among the jobs of one state and queue only their ids do.
    scene.operator.resume("mail", **WHY)
    scene.record(queue="mail", deadline=timedelta(microseconds=1))
    found = explain_search_apart(scene.bench.host, JobFilter(queue="mail"))
    assert {group.code: group.search and group.search.box for group in found.groups} == {
        "no_live_worker": f"id:{','.join(map(str, paused))}",
        "deadline_passed": f"id:{max(paused) + 4}",
    }


def test_more_than_can_be_read_is_said(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        scene.record(delay=60)
    monkeypatch.setattr(waiting_queries, "MOST_WAITING", 3)
    found = explain_search_apart(scene.bench.host, JobFilter())
    assert (found.is_cut, found.number) == (True, 3)
    assert found.says == "Of the first 3 jobs that were found; more may wait."


def test_a_search_that_looks_further_adds_to_what_was_found(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one state more jobs wait than are read. The search finds an old one, and few of the newest."""
    old = scene.record(delay=60, tags=["eu"])
    for _ in range(6):
        scene.record(delay=60)
    monkeypatch.setattr(waiting_queries, "MOST_WAITING", 5)
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 2)
    found = explain_search_apart(scene.bench.host, JobFilter.from_query([("q", "priority:>=0")]))
    assert (found.number, found.is_cut) == (5, True)
    (group,) = explain_search_apart(
        scene.bench.host, JobFilter.from_query([("q", "tag:eu")])
    ).groups
    assert (group.number, group.example) == (1, old)


def test_in_a_large_batch_an_index_finds_the_old_jobs_with_a_tag(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest jobs of each state are listed. When that is not all, the index knows the others."""
    for number in range(6):
        scene.record(delay=60, tags=["eu"] if number < 2 else [])
    with Session(scene.bench.host.engine) as session:
        batch = make_batch(session)
        session.execute(update(Job).values(batch_id=batch.id))
        session.commit()
        wanted = JobFilter.from_query([("q", f"batch:{batch.id} tag:eu")])
    asked: list[JobFilter] = []
    monkeypatch.setattr(waiting_queries, "find_hits", _note(asked, find_hits))
    for most, times in ((10, 1), (3, 2)):
        monkeypatch.setattr(group_queries, "MOST_JOBS", most)
        asked.clear()
        found = explain_search_apart(scene.bench.host, wanted)
        assert (found.number, found.is_cut, len(asked)) == (2, False, times * len(WAITING))


def _note(asked: list[JobFilter], find: Callable[..., Any]) -> Callable[..., Any]:
    def find_noted(session: Session, wanted: JobFilter, *others: Any, **options: Any) -> Any:
        asked.append(wanted)
        return find(session, wanted, *others, **options)

    return find_noted


def test_few_that_wait_are_examined_however_many_others_a_search_finds(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.operator.cancel([scene.record(tags=["eu"])], **WHY)
    scene.record(delay=60, tags=["eu"])
    scene.record(delay=60)
    monkeypatch.setattr(waiting_queries, "find_hits", lambda *_: pytest.fail("an index was read"))
    for box in ("tag:eu", "tag:eu OR tag:us", "args.text:x tag:eu", "tag:eu created:<1h"):
        found = explain_search_apart(scene.bench.host, JobFilter.from_query([("q", box)]))
        assert (found.is_cut, found.number) == (False, "args" not in box)


@pytest.mark.parametrize("box", ["state:failed", "task:nobody", "-state:scheduled"])
def test_nothing_waits(box: str, scene: Scene) -> None:
    scene.record(delay=60)
    found = explain_search_apart(scene.bench.host, JobFilter.from_query([("q", box)]))
    assert (found.number, found.groups, found.says) == (0, (), "No job waits.")


def test_a_job_that_a_worker_takes_meanwhile_is_not_lost(scene: Scene) -> None:
    bench, (taken, lost) = scene.bench, (scene.record(), scene.record())
    bench.dispatch(prefetch=5)
    scene.redis.flushdb()
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET dispatched_at = dispatched_at - interval '6 s'"
    )
    scene.look(lost)
    with Session(bench.host.engine) as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        now = session.scalars(select(func.now())).one()  # its snapshot begins
        bench.claim(taken)
        found = explain_waiting(bench.host, session, JobFilter(), now)
    assert {group.code: group.example for group in found.groups} == {
        "delivery_lost": lost,
        None: taken,
    }


def test_no_partition_is_named(scene: Scene) -> None:
    job_id = scene.record_limited(concurrency=1)
    (job,) = scene.bench.rows("SELECT limiter, partition FROM opsjobs.jobs WHERE id = %s", job_id)
    scene.operator.cooldown(f"api/{job['partition']}", 60, **WHY)
    scene.look(job_id)
    with Session(scene.bench.host.engine) as session:
        now = read_clock(scene.bench.connection)
        (group,) = explain_waiting(scene.bench.host, session, JobFilter(), now).groups
    assert group.says == "limiter api is in a cooldown"
    assert (group.by, group.until == group.last_until) == ("ops-demo", True)


def test_jobs_behind_as_many_as_have_room_are_behind(scene: Scene) -> None:
    jobs = [scene.record_limited(concurrency=2) for _ in range(4)]
    scene.look(jobs[0])
    found = explain_search_apart(scene.bench.host, JobFilter())
    assert {group.code: group.number for group in found.groups} == {None: 2, "limit_behind": 2}


def test_every_reason_can_be_said_of_many() -> None:
    for kind in REASON_KINDS:
        if kind.code not in ("schema_behind", "batch_open"):
            assert kind.many
            assert ("{}" in kind.many) == (kind.about is not None)
