"""Worker processes: what they run, what they refuse, and what cannot bring them down."""

from __future__ import annotations

import pickle
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob

from tests.engine.site import enqueue, rows, state_of
from tests.support import host as host_module
from tests.support.host import add, die, fail, fail_until, hold, tell_workflow
from tests.support.processes import Children
from tests.support.waiting import wait_until

# A kept child, and a fresh process for each job.
KINDS = [(), ("--jobs-per-process", "1")]


class Exploding:
    """Unpickling it raises; what an attacker or a forgotten module leaves in Redis."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (_explode, ())


def _explode() -> None:
    raise RuntimeError("somebody unpickled it")


@pytest.mark.lane
@pytest.mark.parametrize("kind", KINDS)
def test_a_job_runs_and_its_output_is_recorded(
    site: Any, children: Children, kind: tuple[str, ...], redis_client: Redis
) -> None:
    job_id = enqueue(add, a=2, b=3)
    children.flask("opsjobs", "worker", *kind)
    wait_until(lambda: state_of(job_id) == "finished", 20)
    assert rows("SELECT value FROM opsjobs.outputs WHERE job_id = :id", id=job_id) == [(5,)]
    left = [key for key in redis_client.keys("*") if b"opsjobs-" in key]
    wait_until(
        lambda: not [key for key in redis_client.keys("*") if b"opsjobs-" in key],
        5,
        what=f"no trace: {left}",
    )


@pytest.mark.lane
@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_keeps_error_traceback_and_log(
    site: Any, children: Children, kind: tuple[str, ...]
) -> None:
    job_id = enqueue(fail.options(max_attempts=1), message="it broke")
    children.flask("opsjobs", "worker", *kind)
    wait_until(lambda: state_of(job_id) == "failed", 20)
    ((error, traceback),) = rows(
        "SELECT error, traceback FROM opsjobs.attempts WHERE job_id = :id", id=job_id
    )
    assert "RuntimeError: it broke" in error
    assert "in fail" in traceback


@pytest.mark.parametrize("kind", KINDS)
def test_an_unpicklable_payload_of_ours_is_never_read(
    site: Any, children: Children, kind: tuple[str, ...], redis_client: Redis
) -> None:
    """Pitfall: anything in RQ's args must be unpickled by the parent; a poisoned payload kills the worker."""
    job_id = enqueue(add, a=1, b=1)
    (key,) = [key for key in redis_client.keys("*") if b":job:opsjobs-" in key]
    redis_client.hset(key, "data", zlib.compress(pickle.dumps(Exploding())))
    redis_client.hset(key, "meta", pickle.dumps(Exploding()))
    children.flask("opsjobs", "worker", *kind)
    wait_until(lambda: state_of(job_id) == "finished", 20)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreadable_rq_job_of_the_host_takes_nothing_down(
    site: Any, children: Children, kind: tuple[str, ...], redis_client: Redis
) -> None:
    queue = Queue("default", connection=redis_client)
    poisoned = queue.enqueue("os.getpid")
    redis_client.hset(RQJob.key_for(poisoned.id), "timeout", "not a number")
    torn = queue.enqueue("os.getpid")
    redis_client.hset(RQJob.key_for(torn.id), "data", b"\x80\x05 torn")
    job_id = enqueue(add, a=1, b=1)
    worker = children.flask("opsjobs", "worker", *kind)
    wait_until(lambda: state_of(job_id) == "finished", 20)
    assert worker.exit_code is None
    assert redis_client.hget(RQJob.key_for(poisoned.id), "status") == b"failed"


@pytest.mark.lane
@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_the_hosts_own_runs_as_rq_runs_it(
    site: Any, children: Children, kind: tuple[str, ...], redis_client: Redis
) -> None:
    job = Queue("default", connection=redis_client).enqueue("os.getpid", result_ttl=60)
    children.flask("opsjobs", "worker", *kind)
    wait_until(lambda: job.get_status(refresh=True) == "finished", 20)


@pytest.mark.sessions
@pytest.mark.parametrize("kind", KINDS)
def test_plain_rq_jobs_share_nothing_of_the_app(
    site: Any, children: Children, kind: tuple[str, ...], redis_client: Redis
) -> None:
    """A transaction that one leaves failed, or something in `g`, is no business of the next."""
    queue = Queue("default", connection=redis_client)
    names = ("break_the_session", "look_into_the_session", "look_into_the_session")
    jobs = [queue.enqueue(f"tests.support.host.{name}", result_ttl=60) for name in names]
    children.flask("opsjobs", "worker", *kind)
    wait_until(lambda: jobs[-1].get_status(refresh=True) in ("finished", "failed"), 20)
    assert [job.get_status(refresh=True) for job in jobs] == ["failed", "finished", "finished"]
    (first, left), (second, left_again) = (job.return_value() for job in jobs[1:])
    assert (left, left_again) == (None, None)
    # A child must not talk over a connection of its parent's, over which the next child would talk on.
    # A kept child keeps its own.
    assert (first == second) is (kind == ())


@pytest.mark.parametrize("kind", KINDS)
def test_a_teardown_that_raises_costs_neither_the_job_nor_the_worker(
    site: Any, children: Children, kind: tuple[str, ...], redis_client: Redis
) -> None:
    queue = Queue("default", connection=redis_client)
    jobs = [queue.enqueue("os.getpid", result_ttl=60) for _ in range(2)]
    worker = children.python("-c", RAISES_IN_ITS_TEARDOWN, *kind)
    wait_until(lambda: all(job.get_status(refresh=True) == "finished" for job in jobs), 20)
    worker.wait_for("a teardown function of the app raised (RuntimeError at <string>:")
    assert "in the host's teardown" not in worker.log
    assert worker.exit_code is None


RAISES_IN_ITS_TEARDOWN = """
import sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import WorkerOptions
from tests.support.host import create_app

app = create_app()

@app.teardown_appcontext
def tear_down(_):
    raise RuntimeError("in the host's teardown")

app.app_context().push()
options = WorkerOptions(jobs_per_process=1 if "--jobs-per-process" in sys.argv else 1000)
sys.exit(run(app, ["default"], options))
"""


@pytest.mark.lane
def test_retried_to_success(site: Any, children: Children) -> None:
    job_id = enqueue(fail_until, attempt=3)
    children.flask("opsjobs", "worker")
    children.flask("opsjobs", "run")
    wait_until(lambda: state_of(job_id) == "finished", 30)
    outcomes = rows(
        "SELECT outcome FROM opsjobs.attempts WHERE job_id = :id ORDER BY dispatch_no", id=job_id
    )
    assert [outcome for (outcome,) in outcomes] == ["raised", "raised", "returned"]


def test_a_worker_that_this_process_did_not_import(site: Any, children: Children) -> None:
    """A task whose import failed for ten minutes: its job ends with its own cause, the others run."""
    job_id, other = enqueue(add, a=1, b=1), enqueue(add, a=2, b=2)
    from sqlalchemy import text

    host_module.db.session.execute(
        text(
            "UPDATE opsjobs.jobs SET task = 'gone',"
            " first_handed_back_at = clock_timestamp() - interval '11 minutes' WHERE id = :id"
        ),
        {"id": job_id},
    )
    host_module.db.session.commit()
    children.flask("opsjobs", "worker")
    wait_until(lambda: (state_of(job_id), state_of(other)) == ("failed", "finished"), 20)
    assert rows("SELECT ended_by FROM opsjobs.jobs WHERE id = :id", id=job_id) == [
        ("unknown_task",)
    ]


def test_stored_arguments_that_no_longer_validate(site: Any, children: Children) -> None:
    job_id = enqueue(add, a=1, b=1)
    from sqlalchemy import text

    # What an older version of the host stored, refused for ten minutes:
    # the real writer of today refuses to store it.
    host_module.db.session.execute(
        text(
            """UPDATE opsjobs.jobs SET args = '{"a": "x", "c": 1}',
            first_handed_back_at = clock_timestamp() - interval '11 minutes'"""
        )
    )
    host_module.db.session.commit()
    children.flask("opsjobs", "worker")
    wait_until(lambda: state_of(job_id) == "failed", 20)
    ((ended_by, attempts),) = rows(
        "SELECT ended_by, attempt FROM opsjobs.jobs WHERE id = :id", id=job_id
    )
    assert (ended_by, attempts) == ("invalid_args", 1)


@pytest.mark.lane
@pytest.mark.parametrize("kind", KINDS)
def test_a_started_job_is_really_stopped(
    site: Any, children: Children, kind: tuple[str, ...], tmp_path: Path
) -> None:
    from sqlalchemy import text

    gate = str(tmp_path / "gate")
    job_id = enqueue(hold, gate=gate)
    children.flask("opsjobs", "worker", *kind, OPSJOBS_HEARTBEAT_SECONDS=0.2)
    wait_until(Path(gate + ".begun").exists, 20)
    host_module.db.session.execute(
        text(
            "UPDATE opsjobs.jobs SET cancel_requested_at = clock_timestamp(),"
            " cancel_requested_by = 'anna', cancel_reason = 'it is wrong'"
        )
    )
    host_module.db.session.commit()
    wait_until(lambda: state_of(job_id) == "canceled", 20)
    after = enqueue(add, a=1, b=1)
    wait_until(lambda: state_of(after) == "finished", 20, what="the worker goes on")


@pytest.mark.slow
def test_a_function_that_ignores_its_time_limit_is_killed(
    site: Any, children: Children, tmp_path: Path
) -> None:
    job_id = enqueue(host_module.deaf.options(timeout=1, max_attempts=1))
    children.flask("opsjobs", "worker")
    wait_until(lambda: state_of(job_id) == "failed", 30)
    ((outcome, cause),) = rows(
        "SELECT outcome, cause_of_death FROM opsjobs.attempts WHERE job_id = :id", id=job_id
    )
    assert outcome == "timed_out"
    assert "time-out" in cause


def test_a_large_result_passes_the_channel(site: Any, children: Children) -> None:
    """Pitfall: a pipe from the child deadlocks at 65,537 bytes against wait4."""
    job_id = enqueue(host_module.large, size=200_000)
    children.flask("opsjobs", "worker")
    wait_until(lambda: state_of(job_id) == "finished", 20)
    assert rows(
        "SELECT length(value #>> '{}') FROM opsjobs.outputs WHERE job_id = :id", id=job_id
    ) == [(200_000,)]


@pytest.mark.lane
def test_a_killed_child_leaves_its_last_words(site: Any, children: Children) -> None:
    job_id = enqueue(die.options(max_attempts=1), attempts=1)
    children.flask("opsjobs", "worker")
    wait_until(lambda: state_of(job_id) == "failed", 20)
    ((log_tail,),) = rows("SELECT log_tail FROM opsjobs.attempts WHERE job_id = :id", id=job_id)
    assert "about to die" in log_tail


def test_progress_is_seen_while_it_runs(site: Any, children: Children, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    job_id = enqueue(host_module.progress_then_hold, gate=gate)
    children.flask("opsjobs", "worker")
    seen = "SELECT progress_done, progress_total, progress_note FROM opsjobs.attempts WHERE job_id = :id"
    wait_until(lambda: rows(seen, id=job_id) == [(3, 10, "third")], 20)
    Path(gate).touch()
    wait_until(lambda: state_of(job_id) == "finished", 20)


PUSHES_LATE_WHAT_IT_GIVES_BACK = """
import sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.redis.broker import Broker
from flask_opsjobs.engine.worker.parent import Parent, WorkerOptions
from tests.support.host import create_app
from tests.support.waiting import wait_until

parents, pushed, push, take_in = [], [], Broker.push, Parent._take_in

def give_back_what_was_taken(self, news):
    take_in(self, news)
    if not parents and news.jobs:
        parents.append(self)
        self._give_back_all()
        wait_until(lambda: pushed)

def push_late(self, deliveries, **options):
    pushed.append(deliveries)
    link = parents[0]._link
    before = link.empty_pops
    wait_until(lambda: link.empty_pops > before + 1 or parents[0].has_left)
    push(self, deliveries, **options)

def end_children(self):
    self.has_left = True
    end(self)

end, Parent.has_left = Parent._end_children, False
Parent._take_in, Parent._end_children, Broker.push = give_back_what_was_taken, end_children, push_late
app = create_app()
with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions(burst=True, with_scheduler=False)))
"""


def test_a_burst_does_not_end_while_jobs_that_it_gave_back_are_on_their_way(
    site: Any, children: Children
) -> None:
    """They are not due any more, and not in Redis yet."""
    site.extensions["opsjobs"].dispatcher = None
    add.enqueue_many({"a": number, "b": 1} for number in range(2))
    host_module.db.session.commit()
    assert children.python("-c", PUSHES_LATE_WHAT_IT_GIVES_BACK).wait(30) == 0
    assert rows("SELECT state, count(*) FROM opsjobs.jobs GROUP BY 1") == [("finished", 2)]


def test_a_stopped_worker_exits_0_and_says_so(site: Any, children: Children) -> None:
    worker = children.flask("opsjobs", "worker")
    worker.wait_for("listens to")
    wait_until(lambda: rows("SELECT 1 FROM opsjobs.workers WHERE state = 'alive'"), 10)
    assert worker.terminate() == 0
    assert rows("SELECT state FROM opsjobs.workers") == [("stopped",)]


@pytest.mark.slow
@pytest.mark.lane
def test_a_plain_rq_worker_runs_managed_jobs(site: Any, children: Children, redis_url: str) -> None:
    job_id = enqueue(add, a=20, b=22)
    rq = str(Path(sys.executable).with_name("rq"))
    children.start(
        rq, "worker", "--url", redis_url, "default", env={"FLASK_APP": "tests.support.host"}
    )
    wait_until(lambda: state_of(job_id) == "finished", 30)
    assert rows("SELECT value FROM opsjobs.outputs WHERE job_id = :id", id=job_id) == [(42,)]
    assert rows("SELECT kind FROM opsjobs.workers") == [("plain",)]


@pytest.mark.parametrize("kind", ["kept", "fresh", "plain"])
def test_a_step_asks_for_its_run(site: Any, children: Children, redis_url: str, kind: str) -> None:
    flow = host_module.opsjobs.workflow("told", context={"account_id": 42})
    flow.step("tell", tell_workflow)
    flow.start()
    alone = enqueue(tell_workflow)
    if kind == "plain":
        rq = str(Path(sys.executable).with_name("rq"))
        app = {"FLASK_APP": "tests.support.host"}
        children.python(rq, "worker", "--url", redis_url, "default", env=app)
    else:
        children.flask("opsjobs", "worker", *(KINDS[1] if kind == "fresh" else ()))
    told = "SELECT value FROM opsjobs.outputs ORDER BY job_id = :alone"
    wait_until(lambda: len(rows(told, alone=alone)) == 2, 30)
    assert rows(told, alone=alone) == [(["told", "tell", {"account_id": 42}],), (None,)]


TALKS_WHILE_IT_FORKS = """
import logging, sys, threading
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import WorkerOptions
from flask_opsjobs.engine.worker.recorder import Recorder
from tests.support.host import create_app

def talk():
    while True:
        Recorder._say(None, logging.WARNING, "%s", "x" * 500)

logging.basicConfig(filename="/dev/null")
app = create_app()
with app.app_context():
    threading.Thread(target=talk, daemon=True).start()
    sys.exit(run(app, ["default"], WorkerOptions(jobs_per_process=1, max_jobs=20)))
"""


def test_fork_while_a_thread_logs_does_not_hang(site: Any, children: Children) -> None:
    """Pitfall: a thread of the parent that logs while the main thread forks; 99 of 100 children hang."""
    jobs = [enqueue(host_module.say, text="hi") for _ in range(20)]
    children.python("-c", TALKS_WHILE_IT_FORKS)
    # A child that hangs does so for ever, and the thread leaves little of a busy machine to the others.
    wait_until(lambda: all(state_of(job_id) == "finished" for job_id in jobs), 200)


@pytest.mark.slow
def test_another_key_prefix_is_used_throughout(
    site: Any, children: Children, redis_client: Redis
) -> None:
    """`RQ_KEY_PREFIX` is read when RQ is imported, so each process of the site is told."""
    # Recorded without the hook: this process has imported RQ under its default prefix.
    host = site.extensions["opsjobs"]
    host.dispatcher = None
    job_id = enqueue(add, a=1, b=2)
    command = ("-m", "flask", "--app", "tests.support.host", "opsjobs")
    for word in ("worker", "run"):
        children.python(*command, word, env={"RQ_KEY_PREFIX": "shop.{a}"})
    wait_until(lambda: state_of(job_id) == "finished", 20)
    keys: Any = redis_client.keys("*")
    assert {key.split(b":")[0] for key in keys} == {b"shop.{a}"}


ENDS_BY_ITSELF = """
import sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import Parent, WorkerOptions
from tests.support.host import create_app

def break_off(*_):
    raise RuntimeError("unforeseen")

Parent._look = break_off
app = create_app()
with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions()))
"""


def test_a_loop_that_ends_by_itself_exits_non_zero(site: Any, children: Children) -> None:
    """Pitfall: an unhandled exception ended RQ's `work()` with exit code 0."""
    assert children.python("-c", ENDS_BY_ITSELF).wait(30) == 1
    assert rows("SELECT state FROM opsjobs.workers") == [("stopped",)]
