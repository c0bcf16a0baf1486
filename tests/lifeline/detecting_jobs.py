"""Makes workers, jobs, queues and leases that something is wrong with, and what looks like it."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.workers import transitions as workers
from tests.lifeline.detecting import Case, Scene

WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}


def cancel_all(scene: Scene) -> None:
    """Cancel every job that waits."""
    ids = [
        row["id"] for row in scene.bench.rows("SELECT id FROM opsjobs.jobs WHERE ended_at IS NULL")
    ]
    Operator(scene.bench.host).cancel(ids, **WHY)


def start(scene: Scene, **options: Any) -> int:
    """A job that the worker of the bench has started."""
    bench = scene.bench
    job_id: int = scene.get("record_job")(**options)
    bench.dispatch(prefetch=1000)
    bench.claim(job_id)
    return job_id


def beat(scene: Scene, *reserved: str) -> None:
    """A heartbeat of the bench's worker at the time of the scene."""
    number = scene.memory["heartbeat"] = scene.memory.get("heartbeat", 0) + 1
    report = workers.HeartbeatReport(number, reserved=reserved)
    workers.record_heartbeat(scene.bench.connection, scene.bench.worker_id, report, scene.now)


# --- worker_missing


def _watch(scene: Scene, times: int) -> None:
    for _ in range(times):
        scene.wait(10)
        scene.run("watch")


def _fall_missing(scene: Scene) -> None:
    """Its job stays started, because rescue is manual here."""
    scene.change_settings(rescue="manual")
    if "job" not in scene.memory:
        scene.memory["job"] = start(scene)
    _watch(scene, 14)


def _come_back(scene: Scene) -> None:
    beat(scene)


def _be_late(scene: Scene) -> None:
    start(scene)
    _watch(scene, 7)
    state = scene.bench.row("SELECT state FROM opsjobs.workers")["state"]
    assert state == "late"


def _sleep(scene: Scene) -> None:
    start(scene)
    scene.run("watch")
    scene.wait(6 * 3600)
    scene.run("watch")


def _stop(scene: Scene) -> None:
    workers.stop(scene.bench.connection, scene.bench.worker_id, scene.now)
    _watch(scene, 14)


WORKER_MISSING = Case(
    _fall_missing,
    _come_back,
    {"late": _be_late, "watcher asleep": _sleep, "clean stop": _stop},
)


# --- held_by_nobody


def _forget(scene: Scene) -> None:
    """Two heartbeats do not name the job that its worker has claimed."""
    if "job" not in scene.memory:
        scene.memory["job"] = start(scene)
    for _ in range(3):
        scene.wait(10)
        beat(scene)


def _name(scene: Scene) -> None:
    beat(scene, f"{scene.memory['job']}-1")


def _claim_between_heartbeats(scene: Scene) -> None:
    start(scene)
    scene.wait(5)
    beat(scene)


def _be_plain(scene: Scene) -> None:
    _forget(scene)
    scene.bench.rows("UPDATE opsjobs.workers SET kind = 'plain' RETURNING id")


HELD_BY_NOBODY = Case(
    _forget,
    _name,
    {"claim between two heartbeats": _claim_between_heartbeats, "plain worker": _be_plain},
)


# --- queue_unserved


def _leave_unserved(scene: Scene) -> None:
    scene.get("record_job")(queue="mail")


def _pause(scene: Scene) -> None:
    _leave_unserved(scene)
    Operator(scene.bench.host).pause("mail", **WHY)


def _drain(scene: Scene) -> None:
    _leave_unserved(scene)
    Operator(scene.bench.host).drain("mail", **WHY)


def _only_schedule(scene: Scene) -> None:
    scene.get("record_job")(queue="mail", delay=3600)


def _restart(scene: Scene) -> None:
    """Its jobs have been due for an hour; its only worker is away for 20 s."""
    _leave_unserved(scene)
    scene.wait(3600)
    process = workers.WorkerProcess(name="old", host="h", pid=1, version="1", queues=["mail"])
    old = workers.register(scene.bench.connection, process, scene.now)
    scene.look(2)
    workers.stop(scene.bench.connection, old, scene.now)
    scene.look(4)
    process = workers.WorkerProcess(name="new", host="h", pid=2, version="1", queues=["mail"])
    workers.register(scene.bench.connection, process, scene.now)


QUEUE_UNSERVED = Case(
    _leave_unserved,
    cancel_all,
    {
        "paused": _pause,
        "draining": _drain,
        "only scheduled": _only_schedule,
        "restart within 30 s": _restart,
    },
)


# --- lease_leaked


def _lease(scene: Scene, job_id: int, dispatch_no: int = 1, age: float = 60) -> None:
    scene.bench.rows(
        """INSERT INTO opsjobs.leases (job_id, dispatch_no, limiter, partition, weight, taken_at)
            VALUES (%s, %s, 'api', '', 1, %s) RETURNING job_id""",
        job_id,
        dispatch_no,
        scene.now - timedelta(seconds=age),
    )


def _leak(scene: Scene) -> None:
    """No code of ours leaves a lease behind: the row is written as a fault would leave it."""
    _lease(scene, scene.get("record_job")())


def _release(scene: Scene) -> None:
    scene.bench.rows("DELETE FROM opsjobs.leases RETURNING job_id")


def _hold_a_place(scene: Scene) -> None:
    _lease(scene, start(scene))


def _claim_now(scene: Scene) -> None:
    _lease(scene, scene.get("record_job")(), age=0)


LEASE_LEAKED = Case(
    _leak, _release, {"a job that runs": _hold_a_place, "claim under way": _claim_now}
)


# --- poison


def _die(scene: Scene, *jobs: int, death: str = "signal") -> None:
    """Each of these jobs loses its process at the same moment, and is due again.

    What died before did so ten minutes ago.
    """
    bench = scene.bench
    bench.rows(
        "UPDATE opsjobs.attempts SET ended_at = ended_at - interval '10 min' RETURNING 1 AS n"
    )
    bench.dispatch(prefetch=1000)
    numbers = {job: bench.job(job)["dispatch_no"] for job in jobs}
    for job, number in numbers.items():
        bench.claim(job, number)
    for job, number in numbers.items():
        died = Outcome(kind="died", error="killed", cause_of_death="signal 9", death=death)
        bench.record(job, number, died)
    scene.wait(10)
    scene.run("stage")


def _poison(scene: Scene) -> None:
    if (job := scene.memory.get("job")) is not None:
        Operator(scene.bench.host).retry(job, **WHY)
        return
    job = scene.memory["job"] = scene.get("record_job")(max_attempts=9)
    # By chance, another one of its worker dies twice at the first moment, and one of another worker.
    beside = scene.get("record_job")(max_attempts=2)
    elsewhere = scene.get("record_job")(max_attempts=9)
    _die(scene, job, beside, elsewhere)
    _die(scene, beside)
    scene.bench.rows(
        "UPDATE opsjobs.attempts SET worker = CASE WHEN job_id = %s THEN 'other' ELSE worker END, "
        "ended_at = (SELECT max(ended_at) FROM opsjobs.attempts WHERE job_id = %s) RETURNING 1 AS n",
        elsewhere,
        job,
    )
    _die(scene, job)


def _die_together(scene: Scene, number: int, death: str) -> None:
    jobs = [scene.get("record_job")(max_attempts=9) for _ in range(number)]
    for _ in range(2):
        _die(scene, *jobs, death=death)


def _die_once(scene: Scene) -> None:
    _die(scene, scene.get("record_job")(max_attempts=9))


POISON = Case(
    _poison,
    cancel_all,
    {
        "three of one worker die at once": partial(_die_together, number=3, death="signal"),
        "a reboot takes the worker and two jobs": partial(
            _die_together, number=2, death="vanished"
        ),
        "nobody saw how two died at once": partial(_die_together, number=2, death="unknown"),
        "one death": _die_once,
    },
)


# --- code_missing


def _hand_back(scene: Scene, ended_by: str = "unknown_task") -> None:
    job = start(scene)
    error = "no task 'note' is declared here" if ended_by == "unknown_task" else "text: missing"
    scene.bench.record(
        job, 1, Outcome(kind="not_run", error=error, reason=error, ended_by=ended_by)
    )


def _lack_code(scene: Scene) -> None:
    _hand_back(scene)
    scene.wait(35)


def _refuse_once(scene: Scene) -> None:
    """The worker of the next deploy takes the job after some seconds."""
    _hand_back(scene)
    scene.look(2)
    scene.run("stage")
    job = scene.bench.row("SELECT id, dispatch_no FROM opsjobs.jobs")
    scene.bench.dispatch(prefetch=10)
    scene.bench.claim(job["id"], job["dispatch_no"] + 1)
    scene.wait(60)


def _refuse_arguments(scene: Scene) -> None:
    _hand_back(scene, "invalid_args")
    scene.wait(35)


CODE_MISSING = Case(
    _lack_code,
    cancel_all,
    {"one refusal during a deploy": _refuse_once, "invalid arguments": _refuse_arguments},
)


# --- retry_storm


def _repeat(scene: Scene, jobs: int, attempts: int) -> None:
    """So many jobs, each with so many attempts that failed a minute ago."""
    scene.bench.connection.execute(
        """WITH made AS (
            INSERT INTO opsjobs.jobs
                (task, queue, lane, state, args, max_attempts, attempt, created_at, due_at)
            SELECT 'note', 'default', 'default', 'retryable', '{}', 50, %(attempts)s, %(now)s, %(now)s
            FROM generate_series(1, %(jobs)s) RETURNING id)
        INSERT INTO opsjobs.attempts
            (job_id, dispatch_no, attempt, worker_id, worker, started_at, ended_at, outcome)
        SELECT id, n, n, 1, 'worker-1', %(now)s, %(now)s, 'raised'
        FROM made, generate_series(1, %(attempts)s) AS n RETURNING job_id""",
        {"jobs": jobs, "attempts": attempts, "now": scene.now},
    )


def _storm(scene: Scene) -> None:
    _repeat(scene, 30, 5)


def _calm_down(scene: Scene) -> None:
    scene.wait(700)


def _try_one_job_often(scene: Scene) -> None:
    _repeat(scene, 1, 130)


def _succeed_mostly(scene: Scene) -> None:
    _storm(scene)
    scene.bench.rows(
        """INSERT INTO opsjobs.rollups (minute, queue, finished)
            VALUES (date_trunc('minute', %s::timestamptz), 'default', 500) RETURNING minute""",
        scene.now,
    )


def _succeed_just_now(scene: Scene) -> None:
    """The minutes in which the others ended are not counted yet."""
    _storm(scene)
    scene.bench.connection.execute(
        """INSERT INTO opsjobs.jobs
                (task, queue, lane, state, args, max_attempts, attempt, created_at, due_at,
                    ended_at, ended_by)
            SELECT 'note', 'default', 'default', 'finished', '{}', 1, 1, %(now)s, %(now)s, %(now)s, 'returned'
            FROM generate_series(1, 500)""",
        {"now": scene.now},
    )


def _operate(scene: Scene) -> None:
    """An operator retries a hundred jobs, and most of them fail again."""
    _repeat(scene, 100, 1)
    ids = [row["id"] for row in scene.bench.rows("SELECT id FROM opsjobs.jobs")]
    Operator(scene.bench.host).retry(ids, **WHY)
    scene.bench.rows(
        """INSERT INTO opsjobs.attempts
            (job_id, dispatch_no, attempt, worker_id, worker, started_at, ended_at, outcome)
        SELECT id, n, n, 1, 'worker-1', %s, %s, 'raised' FROM opsjobs.jobs, generate_series(2, 2) AS n
        RETURNING job_id""",
        scene.now,
        scene.now,
    )


RETRY_STORM = Case(
    _storm,
    _calm_down,
    {
        "one job with many tries": _try_one_job_often,
        "most attempts are first ones": _succeed_mostly,
        "most attempts are first ones, in the last minutes": _succeed_just_now,
        "an operator retries": _operate,
    },
)
