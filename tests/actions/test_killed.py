"""A process is killed between any two statements of an action: it is done wholly or not at all, and again.

The first process is killed before its first statement, the next one before its second, and so on, until one
comes to its end. Each of them has a target of its own.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob

from flask_opsjobs import Unique
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.redis.broker import rq_id
from flask_opsjobs.jobs.record.enqueue import enqueue_detached
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.lifeline import incidents
from flask_opsjobs.lifeline.finding import DetectorPass, Finding
from tests.actions.conftest import Reach
from tests.support.dying import wait_until_rolled_back
from tests.support.engine import Bench, tasks_of
from tests.support.host import note_only_one
from tests.support.processes import Children

pytestmark = [pytest.mark.processes, pytest.mark.slow]

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
KILLED = """
import json, sys
from datetime import datetime
from flask_opsjobs import Unique
from flask_opsjobs.actions.operator import Operator
from tests.support.dying import die_before
from tests.support.host import create_app
number, action, target, params, when = sys.argv[1:]
app = create_app()
with app.app_context():
    operator = Operator(app.extensions["opsjobs"])
    die_before(int(number))
    operator.run(
        action, [target], actor="anna", reason="because it is a test", params=json.loads(params),
        now=datetime.fromisoformat(when),
    )
"""


@dataclass(frozen=True)
class Stage:
    """What the targets are made with."""

    bench: Bench
    reach: Reach
    redis: Redis

    @property
    def now(self) -> datetime:
        """When the action is run: what is queued is old enough to be recalled."""
        return read_clock(self.bench.connection) + timedelta(minutes=1)

    def lost_delivery(self, number: int) -> str:
        """A queued job whose delivery is nowhere."""
        job_id = self.reach("queued")
        self.redis.lrem(Queue("default", connection=self.redis).key, 0, rq_id(job_id, 1))
        return f"job/{job_id}"

    def unique_job(self, number: int) -> str:
        """A job that waits, of a unique task that the process to be killed declares too."""
        host, connection = self.bench.host, self.bench.connection
        connection.execute("DELETE FROM opsjobs.unique_locks")
        task = Task(
            note_only_one.function,
            host=lambda: host,
            unique=Unique(by=["key"], until="ended"),
        )
        task.register(tasks_of(host))
        stored = {"folder": "here", "key": number}
        with connection.transaction():
            enqueued, _lane = enqueue_detached(connection, host, task, stored)
        return f"job/{enqueued.id}"

    def leaked_lease(self, number: int) -> str:
        """The place of an attempt that has ended."""
        job_id = self.reach("finished")
        self.bench.rows(
            "INSERT INTO opsjobs.leases (job_id, dispatch_no, limiter, partition, weight, taken_at)"
            " VALUES (%s, 1, 'api', '', 1, clock_timestamp()) RETURNING 1",
            job_id,
        )
        return f"lease/{job_id}-1"

    def orphan(self, number: int) -> str:
        """A delivery whose job was deleted."""
        job_id = self.reach("queued")
        self.bench.rows("DELETE FROM opsjobs.jobs WHERE id = %s RETURNING 1", job_id)
        return f"delivery/{rq_id(job_id, 1)}"

    def worker(self, number: int) -> str:
        """A worker that runs."""
        Bench(self.bench.host, f"killed-{number}").close()
        return f"worker/killed-{number}"

    def task(self, number: int) -> str:
        """A task with a job, that is not paused."""
        job_id, name = self.reach("queued"), f"killed-{number}"
        self.bench.rows("UPDATE opsjobs.jobs SET task = %s WHERE id = %s RETURNING 1", name, job_id)
        return f"task/{name}"

    def paused_task(self, number: int) -> str:
        """A task with a job, that is paused."""
        target = self.task(number)
        self.bench.rows(
            "INSERT INTO opsjobs.task_pauses VALUES (%s, now(), 'ben', 'the letters') RETURNING 1",
            target.partition("/")[2],
        )
        return target

    def missing_worker(self, number: int) -> str:
        """A worker that was given up and left nothing."""
        target = self.worker(number)
        self.bench.rows(
            "UPDATE opsjobs.workers SET state = 'missing', ended_at = clock_timestamp()"
            " WHERE name = %s RETURNING 1",
            target.partition("/")[2],
        )
        return target

    def incident(self, number: int) -> str:
        """An open incident that the last complete pass has not found."""
        facts = {"loop": "stage", "failed": 5, "process": "p", "error": "no"}
        found = Finding(f"loop/{number}", facts=facts)
        now = read_clock(self.bench.connection)
        with self.bench.connection.transaction():
            (news,) = self._pass([found], now).opened
            self._pass([], now)
        return f"incident/{news.id}"

    def _pass(self, findings: list[Finding], now: datetime) -> incidents.Applied:
        found = DetectorPass(findings)
        return incidents.apply_pass(self.bench.connection, "loop_failing", found, now)


@dataclass(frozen=True)
class Case:
    """An action: how its target is made, and what asks whether it was done. `repeats`: also when it was."""

    action: str
    make: Callable[[Stage, int], str]
    is_done: str
    params: Mapping[str, str] = field(default_factory=dict)
    repeats: bool = False


# They differ: one takes a lock of its own, one writes a row for a state, one a wish that a worker reads, and
# one evidence. Each other action is a variant of one of them.
SHOWN = ("job.edit", "task.pause", "worker.stop", "incident.acknowledge")
CASES = (
    Case(
        "job.edit",
        Stage.unique_job,
        "SELECT args ->> 'key' = '0' AND lane = 'mail' AND queue = 'mail' AND priority = 1"
        " AND unique_key = (SELECT key FROM opsjobs.unique_locks WHERE job_id = j.id)"
        " FROM opsjobs.jobs j WHERE id::text = %s",
        {"queue": "mail", "priority": "1", "args": '{"key": 0}'},
    ),
    Case(
        "job.recall",
        Stage.lost_delivery,
        "SELECT state = 'available' FROM opsjobs.jobs WHERE id::text = %s",
    ),
    Case(
        "lease.release",
        Stage.leaked_lease,
        "SELECT NOT EXISTS (SELECT FROM opsjobs.leases WHERE job_id || '-' || dispatch_no = %s)",
    ),
    Case(
        "task.pause",
        Stage.task,
        "SELECT EXISTS (SELECT FROM opsjobs.task_pauses WHERE task = %s AND paused_by = 'anna')",
    ),
    Case(
        "task.resume",
        Stage.paused_task,
        "SELECT NOT EXISTS (SELECT FROM opsjobs.task_pauses WHERE task = %s)",
    ),
    Case(
        "worker.drain",
        Stage.worker,
        "SELECT drain_requested_at IS NOT NULL FROM opsjobs.workers WHERE name = %s",
    ),
    Case(
        "worker.stop",
        Stage.worker,
        "SELECT drain_requested_at IS NOT NULL FROM opsjobs.workers WHERE name = %s",
        {"grace": "60"},
        repeats=True,
    ),
    Case(
        "worker.forget",
        Stage.missing_worker,
        "SELECT forgotten_at IS NOT NULL FROM opsjobs.workers WHERE name = %s",
    ),
    Case(
        "incident.acknowledge",
        Stage.incident,
        "SELECT state = 'acknowledged' AND acknowledged_by = 'anna' AND EXISTS (SELECT FROM opsjobs.evidence"
        " WHERE incident_id = i.id AND kind = 'acknowledged') FROM opsjobs.incidents i WHERE id::text = %s",
        {"until": "2h"},
        repeats=True,
    ),
    Case(
        "incident.resolve",
        Stage.incident,
        "SELECT state = 'resolved' AND resolved_by = 'operator' AND EXISTS (SELECT FROM opsjobs.evidence"
        " WHERE incident_id = i.id AND kind = 'resolved') FROM opsjobs.incidents i WHERE id::text = %s",
    ),
    Case(
        "note.add",
        lambda stage, _number: f"job/{stage.reach('queued')}",
        "SELECT EXISTS (SELECT FROM opsjobs.audit_events"
        " WHERE action = 'note.add' AND outcome = 'done' AND targets[1] = 'job/' || %s)",
    ),
)


@pytest.fixture
def stage(app: Flask, bench: Bench, reach: Reach, redis_client: Redis) -> Stage:
    return Stage(bench, reach, redis_client)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, id=case.action, marks=() if case.action in SHOWN else pytest.mark.variants
        )
        for case in CASES
    ],
)
def test_killed_in_the_middle_it_is_done_wholly_or_not_at_all(
    case: Case, stage: Stage, bench: Bench, operator: Operator, children: Children
) -> None:
    exit_code, number, seen = -signal.SIGKILL, 0, set()
    while exit_code == -signal.SIGKILL:
        number += 1
        target = case.make(stage, number)
        words = [str(number), case.action, target, json.dumps(case.params), stage.now.isoformat()]
        exit_code = children.python("-c", KILLED, *words).wait(60)
        wait_until_rolled_back(bench.connection)
        is_done = ask(bench, case, target)
        assert count_audited(bench, target) == int(is_done)
        seen.add(is_done)
        again = operator.run(case.action, [target], **WHY, params=dict(case.params), now=stage.now)
        assert again.is_done == (case.repeats or not is_done)
        assert ask(bench, case, target)
    assert exit_code == 0
    assert seen == {False, True}
    assert number > 3


def ask(bench: Bench, case: Case, target: str) -> bool:
    ((is_done,),) = [row.values() for row in bench.rows(case.is_done, target.partition("/")[2])]
    return bool(is_done)


def count_audited(bench: Bench, target: str) -> int:
    rows = bench.rows(
        "SELECT count(*) AS n FROM opsjobs.audit_events WHERE subject = %s AND outcome = 'done'",
        target,
    )
    return int(rows[0]["n"])


def test_a_removal_killed_in_the_middle_is_done_again_or_by_the_loop(
    stage: Stage, bench: Bench, operator: Operator, children: Children, redis_client: Redis
) -> None:
    """Postgres has the decision or not; Redis is changed after it. Nothing that is left harms a job."""
    exit_code, number, left = -signal.SIGKILL, 0, set()
    while exit_code == -signal.SIGKILL:
        number += 1
        target = stage.orphan(number)
        words = [str(number), "delivery.remove", target, "{}", stage.now.isoformat()]
        exit_code = children.python("-c", KILLED, *words).wait(60)
        wait_until_rolled_back(bench.connection)
        is_there = bool(redis_client.exists(RQJob.key_for(target.partition("/")[2])))
        assert is_there or count_audited(bench, target) == 1
        left.add(is_there)
        again = operator.run("delivery.remove", [target], **WHY)
        assert again.is_done == is_there
        assert not redis_client.exists(RQJob.key_for(target.partition("/")[2]))
    assert exit_code == 0
    assert left == {False, True}
