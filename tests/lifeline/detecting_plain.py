"""Makes plain RQ jobs wait for ever and lose their worker, with RQ's own workers, and what looks like it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from rq import Queue, SimpleWorker
from rq.job import Dependency, JobStatus
from rq.job import Job as RQJob
from rq.worker import BaseWorker

from tests.lifeline.detecting import Case, Scene
from tests.support.plain import fail_plain, hold_plain, take_plain
from tests.support.waiting import wait_until


def _queue(scene: Scene) -> Queue:
    return Queue("default", connection=scene.get("redis_client"))


def _work(queue: Queue) -> None:
    SimpleWorker([queue], connection=queue.connection).work(burst=True, logging_level="CRITICAL")


# --- rq_dependents_stuck


def _parent(scene: Scene) -> RQJob:
    """A plain job that has failed."""
    if "parent" not in scene.memory:
        queue = _queue(scene)
        scene.memory["parent"] = queue.enqueue(fail_plain)
        _work(queue)
    parent: RQJob = scene.memory["parent"]
    assert parent.get_status() is JobStatus.FAILED
    return parent


def _wait_behind_it(scene: Scene) -> None:
    scene.memory["dependent"] = _queue(scene).enqueue(take_plain, depends_on=_parent(scene))
    scene.run("adopt")


def wait_in_a_chain(scene: Scene) -> str:
    """Behind a job that failed waits one, behind that two, and behind one of these another; RQ's first id."""
    queue = _queue(scene)
    first = queue.enqueue(take_plain, depends_on=_parent(scene))
    second, _ = (queue.enqueue(take_plain, depends_on=first) for _ in range(2))
    queue.enqueue(take_plain, depends_on=second)
    scene.run("adopt")
    return str(first.id)


def _cancel_dependent(scene: Scene) -> None:
    scene.memory["dependent"].cancel()
    scene.wait(10)
    scene.run("adopt")


def _allow_failure(scene: Scene) -> None:
    queue = _queue(scene)
    parent = queue.enqueue(fail_plain)
    queue.enqueue(take_plain, depends_on=Dependency([parent], allow_failure=True))
    scene.run("adopt")
    _work(queue)
    scene.wait(10)
    scene.run("adopt")


def _wait_behind_one_that_runs(scene: Scene) -> None:
    queue = _queue(scene)
    queue.enqueue(take_plain, depends_on=queue.enqueue(take_plain))
    scene.run("adopt")


RQ_DEPENDENTS_STUCK = Case(
    _wait_behind_it,
    _cancel_dependent,
    {"`allow_failure`": _allow_failure, "the parent waits": _wait_behind_one_that_runs},
)


# --- rq_orphan


def _start_and_kill(scene: Scene, *options: str) -> RQJob:
    """RQ's own worker and its child are killed while they run a job; RQ hears nothing for minutes."""
    queue, gate = _queue(scene), Path(scene.get("tmp_path")) / "gate"
    begun = Path(f"{gate}.begun")
    begun.unlink(missing_ok=True)
    if "job" in scene.memory:
        scene.memory["job"].requeue()
    else:
        scene.memory["job"] = queue.enqueue(hold_plain, str(gate))
    rq = str(Path(sys.executable).with_name("rq"))
    url = scene.get("redis_url")
    worker = scene.get("children").python(rq, "worker", "--url", url, *options, "default")
    wait_until(begun.exists, 60)
    worker.kill_all()
    scene.run("adopt")
    scene.wait(20 * 60)
    job: RQJob = scene.memory["job"]
    return job


def _be_orphaned(scene: Scene) -> None:
    """RQ's keys of the worker and of its run expire."""
    job = _start_and_kill(scene, "--worker-class", "tests.support.plain.ForgottenSoon")
    job.refresh()
    key = f"{BaseWorker.redis_worker_namespace_prefix}{job.worker_name}"
    wait_until(lambda: not job.connection.exists(key))
    scene.run("adopt")


def _clean_up(scene: Scene) -> None:
    """As any worker of the queue does, some minutes later."""
    later = datetime(3000, 1, 1, tzinfo=UTC)
    _queue(scene).started_job_registry.cleanup(later.timestamp())
    assert scene.memory["job"].get_status() is JobStatus.FAILED


def _have_a_key(scene: Scene) -> None:
    _start_and_kill(scene)


def _run_without_heartbeats(scene: Scene) -> None:
    """The key of a SimpleWorker lives as long as its job may run."""
    _start_and_kill(scene, "--worker-class", "rq.SimpleWorker")


RQ_ORPHAN = Case(
    _be_orphaned,
    _clean_up,
    {
        "the key of its worker is alive": _have_a_key,
        "a SimpleWorker without heartbeats": _run_without_heartbeats,
    },
    starts_processes=True,
)
