"""What RQ's own tools see of our worker, and do with it: `rq info`, `rq suspend`, its commands to workers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from redis import Redis
from rq import Callback, Queue, Repeat, Retry, Webhook, Worker
from rq.cli.cli import main
from rq.command import (
    send_command,
    send_kill_horse_command,
    send_shutdown_command,
    send_stop_execution_command,
    send_stop_job_command,
)
from rq.job import Dependency, JobStatus
from rq.job import Job as RQJob
from rq.registry import StartedJobRegistry
from rq.utils import current_timestamp
from rq_dashboard import blueprint as dashboard
from rq_dashboard.web import setup_rq_connection

from tests.engine.site import enqueue, rows, state_of
from tests.support.host import add, hold, tock
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

PLAINLY = "tests.support.host."
OFTEN = {"OPSJOBS_HEARTBEAT_SECONDS": 0.2}


@pytest.fixture
def queue(site: Any, redis_client: Redis) -> Queue:
    """A queue of the host, which uses RQ beside us."""
    return Queue("default", connection=redis_client)


@pytest.fixture
def rq(redis_url: str) -> Callable[..., str]:
    """Runs a command of RQ, and returns what it prints."""

    def run(*words: str) -> str:
        command = [words[0], "--url", redis_url, *words[1:]]
        return CliRunner().invoke(main, command, catch_exceptions=False).output

    return run


def start(children: Children, *options: str, **config: Any) -> Child:
    worker = children.flask("opsjobs", "worker", "default", *options, **config)
    worker.wait_for("listens to", 20)
    return worker


def workers(queue: Queue) -> dict[str, Worker]:
    """RQ's workers by the number of their place, as RQ's tools read them."""
    found = Worker.all(connection=queue.connection)
    return {worker.name.rpartition(".")[2]: worker for worker in found}


def status(job: RQJob) -> str:
    return str(job.get_status(refresh=True).value)


def wait_until_begun(gate: Path) -> None:
    wait_until(Path(f"{gate}.begun").exists, 20)


@pytest.mark.slow
def test_rq_info_shows_each_place_and_what_it_runs(
    children: Children, queue: Queue, rq: Callable[..., str], tmp_path: Path
) -> None:
    """Its own jobs and ours alike: an execution in the started registry, and a hash that names the worker."""
    gate, plain_gate = tmp_path / "gate", tmp_path / "plain"
    worker = start(children, "--processes", "3", **OFTEN)
    job_id = enqueue(hold, gate=str(gate))
    plain = queue.enqueue(f"{PLAINLY}hold_plainly", str(plain_gate), result_ttl=60)
    wait_until_begun(gate)
    wait_until_begun(plain_gate)
    wait_until(lambda: rq("info", "--raw").count(" busy ") == 2, 20)
    said = rq("info", "--raw")
    lines = [line for line in said.splitlines() if line.startswith("worker ")]
    ((name,),) = rows("SELECT name FROM opsjobs.workers")
    assert sorted(line.split()[1] for line in lines) == [f"{name}.{at}" for at in (1, 2, 3)]
    assert len([line for line in lines if " idle " in line]) == 1
    # Ours is shown only when it has run for a second.
    wait_until(lambda: sum(bool(one.execution) for one in workers(queue).values()) == 2, 20)
    running = [one.get_current_job() for one in workers(queue).values() if one.execution]
    assert {job.id for job in running} == {plain.id, f"opsjobs-{job_id}-1"}
    (ours,) = [job for job in running if job.id != plain.id]
    assert (ours.description, ours.worker_name.rpartition(".")[0]) == (f"hold {job_id}", name)
    assert ours.created_at < ours.started_at
    assert set(StartedJobRegistry(queue=queue).get_job_ids()) == {job.id for job in running}
    gate.touch()
    plain_gate.touch()
    wait_until(lambda: not StartedJobRegistry(queue=queue).get_job_ids(), 20)

    def traces() -> Any:
        return queue.connection.keys("rq:*opsjobs-*")

    wait_until(lambda: not traces(), 20, what=lambda: f"no trace of our job: {traces()}")
    wait_until(lambda: "1 finished, 0 failed" in rq("info", "--raw"), 20)
    assert state_of(job_id) == "finished"
    assert worker.terminate() == 0
    assert "worker " not in rq("info", "--raw")


def test_rq_dashboard_shows_each_place_and_what_it_runs(
    children: Children, queue: Queue, redis_url: str, tmp_path: Path
) -> None:
    """Its pages read the jobs and the workers, and what it reads harms none of them."""
    gate, plain_gate = tmp_path / "gate", tmp_path / "plain"
    worker = start(children, "--processes", "3", **OFTEN)
    job_id = enqueue(hold, gate=str(gate))
    plain = queue.enqueue(f"{PLAINLY}hold_plainly", str(plain_gate), result_ttl=60)
    wait_until_begun(gate)
    wait_until_begun(plain_gate)
    app = Flask(__name__)
    app.config["RQ_DASHBOARD_REDIS_URL"] = redis_url
    setup_rq_connection(app)
    app.register_blueprint(dashboard, url_prefix="/rq")
    browser = app.test_client()

    def read(path: str) -> Any:
        answer = browser.get(f"/rq/0/{path}", follow_redirects=True)
        assert answer.status_code == 200
        return answer.json if path.endswith(".json") else answer.text

    def shown() -> list[tuple[str, str]]:
        found = read("data/workers.json")["workers"]
        jobs = [one["current_job"] for one in found if one["current_job"] != "idle"]
        return sorted((job["job_id"], job["description"]) for job in jobs)

    ours = (f"opsjobs-{job_id}-1", f"hold {job_id}")
    both = sorted([ours, (plain.id, plain.description)])
    wait_until(lambda: shown() == both, 20, what="both jobs")
    found = read("data/workers.json")["workers"]
    ((name,),) = rows("SELECT name FROM opsjobs.workers")
    assert {one["name"] for one in found} == {f"{name}.{at}" for at in (1, 2, 3)}
    assert {(*one["queues"], one["pid"]) for one in found} == {("default", worker.pid)}
    (told,) = read("data/queues.json")["queues"]
    assert (told["name"], told["started_job_registry_count"]) == ("default", 2)
    listed = read("data/jobs/default/started/8/asc/1.json")["jobs"]
    assert sorted((job["id"], job["description"]) for job in listed) == both
    for path in ("view/workers", "view/queues", "view/jobs", f"view/job/{ours[0]}"):
        assert "<title>RQ dashboard</title>" in read(path)
    assert read(f"data/job/{ours[0]}.json")["status"] == "started"
    gate.touch()
    plain_gate.touch()
    wait_until(lambda: state_of(job_id) == "finished", 20)
    wait_until(lambda: status(plain) == "finished", 20)
    assert worker.terminate() == 0
    assert read("data/workers.json")["workers"] == []


def test_all_records_are_whole_again_after_a_flush(
    children: Children, queue: Queue, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    start(children, "--processes", "2", **OFTEN)
    job_id = enqueue(hold, gate=str(gate))
    rq_id = f"opsjobs-{job_id}-1"
    wait_until(lambda: StartedJobRegistry(queue=queue).get_job_ids() == [rq_id], 20)
    before = {key: worker.serialize() for key, worker in workers(queue).items()}
    queue.connection.flushall()
    wait_until(lambda: len(workers(queue)) == 2, 20)
    after = {key: worker.serialize() for key, worker in workers(queue).items()}
    for place in (*before.values(), *after.values()):
        place.pop("last_heartbeat")
    assert after == before
    wait_until(lambda: StartedJobRegistry(queue=queue).get_job_ids() == [rq_id], 20)
    (busy,) = [worker for worker in workers(queue).values() if worker.execution]
    assert busy.get_current_job().get_status() == "started"
    gate.touch()
    wait_until(lambda: state_of(job_id) == "finished", 20)


def test_rq_suspend_stops_both_kinds_of_jobs(
    children: Children, queue: Queue, rq: Callable[..., str]
) -> None:
    rq("suspend")
    job_id, plain = enqueue(add, a=1, b=1), queue.enqueue("os.getpid", result_ttl=60)
    worker = start(children)
    wait_until(lambda: workers(queue), 20)
    burst = children.flask("opsjobs", "worker", "default", "--burst")
    assert burst.wait(20) == 0, "a burst does not wait for `rq resume`"
    assert (state_of(job_id), status(plain)) == ("queued", "queued")
    rq("resume")
    wait_until(lambda: (state_of(job_id), status(plain)) == ("finished", "finished"), 20)
    assert worker.exit_code is None


@pytest.mark.parametrize("kind", [(), ("--jobs-per-process", "1")])
def test_a_worker_stops_after_so_many_jobs_of_both_kinds(
    children: Children, queue: Queue, kind: tuple[str, ...]
) -> None:
    """Several children count together, and what the worker had taken beyond that is given back."""
    ours = [enqueue(add, a=1, b=number) for number in range(4)]
    theirs = [queue.enqueue("os.getpid", result_ttl=60) for _ in range(4)]

    def count_finished() -> int:
        states = [state_of(job_id) for job_id in ours] + [status(job) for job in theirs]
        return states.count("finished")

    words = ("opsjobs", "worker", "default", "--burst", "--processes", "3", *kind)
    assert children.flask(*words, "--max-jobs", "5").wait(30) == 0
    assert count_finished() == 5
    assert rows("SELECT count(*) FROM opsjobs.jobs WHERE reserved_by IS NOT NULL") == [(0,)]
    assert children.flask(*words).wait(30) == 0
    assert count_finished() == 8


@pytest.mark.slow
@pytest.mark.parametrize("command", ["stop-job", "stop-execution", "kill-horse"])
def test_a_command_ends_the_job_that_is_meant(
    children: Children, queue: Queue, tmp_path: Path, command: str
) -> None:
    """One of ours and one of the host run in each of two places; one of each is to end."""
    start(children, "--processes", "4", **OFTEN)
    gates = [tmp_path / str(number) for number in range(4)]
    ours = [enqueue(hold.options(max_attempts=1), gate=str(gate)) for gate in gates[:2]]
    theirs = [
        queue.enqueue(f"{PLAINLY}hold_plainly", str(gate), result_ttl=60) for gate in gates[2:]
    ]
    for gate in gates:
        wait_until_begun(gate)
    meant = [f"opsjobs-{ours[0]}-1", theirs[0].id]
    registry = StartedJobRegistry(queue=queue)
    wait_until(lambda: set(meant) <= set(registry.get_job_ids()), 20)
    for rq_id in meant:
        job = RQJob.fetch(rq_id, connection=queue.connection)
        (execution,) = job.get_executions()
        assert execution.worker_name == job.worker_name
        if command == "stop-job":
            send_command(queue.connection, execution.worker_name, command, job_id="another")
            send_stop_job_command(queue.connection, rq_id)
        elif command == "stop-execution":
            old = {"job_id": rq_id, "execution_id": "of an attempt before"}
            send_command(queue.connection, execution.worker_name, command, **old)
            send_stop_execution_command(queue.connection, rq_id, execution.id)
        else:
            send_kill_horse_command(queue.connection, execution.worker_name)
    is_kill = command == "kill-horse"
    wait_until(lambda: state_of(ours[0]) == ("failed" if is_kill else "canceled"), 20)
    wait_until(lambda: status(theirs[0]) == ("failed" if is_kill else "stopped"), 20)
    assert (state_of(ours[1]), status(theirs[1])) == ("started", "started")
    for gate in gates:
        gate.touch()
    wait_until(lambda: (state_of(ours[1]), status(theirs[1])) == ("finished", "finished"), 20)


def test_shutdown_of_a_place_stops_the_worker_after_its_jobs(
    children: Children, queue: Queue, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start(children, "--processes", "2", **OFTEN)
    job_id = enqueue(hold, gate=str(gate))
    wait_until_begun(gate)
    name = wait_until(lambda: workers(queue), 20)["2"].name
    send_shutdown_command(queue.connection, name)
    key = Worker.redis_worker_namespace_prefix + name
    wait_until(lambda: queue.connection.hexists(key, "shutdown_requested_date"), 20)
    assert worker.exit_code is None
    gate.touch()
    assert worker.wait(20) == 0
    assert state_of(job_id) == "finished"


# --- plain RQ jobs


def test_a_plain_job_whose_process_dies_is_retried_and_then_failed(
    children: Children, queue: Queue, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    job = queue.enqueue(f"{PLAINLY}die_plainly", str(path), retry=Retry(max=1))
    after = queue.enqueue(
        "os.getpid", depends_on=Dependency(job, allow_failure=True), result_ttl=60
    )
    start(children)
    wait_until(lambda: status(after) == "finished", 20)
    first, second = path.read_text().split()
    assert first != second
    assert status(job) == "failed"
    assert "killed by SIGKILL" in str(job.latest_result().exc_string)
    assert job.get_executions() == []


@pytest.mark.parametrize("queues", [("default",), ("default", "mail")])
def test_an_id_that_is_no_text_stops_no_other_job(
    children: Children, queue: Queue, queues: tuple[str, ...]
) -> None:
    """RQ's own worker ends at it. One waits at the start of the worker, another comes while it waits."""

    def run_both() -> None:
        plain, job_id = queue.enqueue("os.getpid", result_ttl=60), enqueue(add, a=1, b=1)
        wait_until(lambda: (state_of(job_id), status(plain)) == ("finished", "finished"), 20)

    worker = None
    for wrong in (b"\xff", b"opsjobs-\xfe"):
        queue.connection.rpush(queue.key, wrong)
        worker = worker or children.flask("opsjobs", "worker", *queues)
        worker.wait_for(f"no text and is dropped: {wrong!r}", 20)
        run_both()
        assert wrong not in queue.connection.lrange(queue.intermediate_queue_key, 0, -1)
    assert worker.terminate() == 0


@pytest.mark.slow
def test_an_id_that_only_looks_like_ours_loses_no_delivery_beside_it(
    children: Children, site: Flask, redis_client: Redis
) -> None:
    """Limited jobs, since no worker takes these from Postgres past their deliveries."""
    queue = Queue("limited", connection=redis_client)
    words = ("opsjobs", "worker", "limited")
    assert children.flask(*words, "--burst").wait(20) == 0, "now the limiter is known"
    for wrong in (b"opsjobs-\xff", b"opsjobs-007-1", f"opsjobs-{2**63}-1", "opsjobs-x"):
        before = enqueue(tock)
        wait_until(lambda: queue.count == 1, what="its push has arrived")
        redis_client.rpush(queue.key, wrong)
        behind = enqueue(tock)
        wait_until(lambda: queue.count == 3, what="its push has arrived")
        worker = children.flask(*words)
        wait_until(lambda job_id=before: state_of(job_id) == "finished", 20)
        wait_until(lambda job_id=behind: state_of(job_id) == "finished", 20)
        assert worker.terminate() == 0


def test_plain_jobs_have_callbacks_repeats_and_dependents(
    children: Children, queue: Queue, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = queue.enqueue(
        "os.getpid",
        repeat=Repeat(times=1),
        result_ttl=60,
        on_success=Callback(f"{PLAINLY}note_success"),
    )
    gone = queue.enqueue("os.getpid", result_ttl=0)
    failing = queue.enqueue("os.no_such_function", on_failure=Callback(f"{PLAINLY}note_failure"))
    slow = queue.enqueue(f"{PLAINLY}hold_plainly", str(gate), job_timeout=1)
    start(children)
    wait_until(lambda: len(job.results()) == 2, 20)
    wait_until(lambda: [status(failing), status(slow)] == ["failed", "failed"], 20)
    assert "JobTimeoutException" in str(slow.latest_result().exc_string)
    assert not queue.connection.exists(gone.key)
    assert queue.connection.lrange("noted", 0, -1) == [b"success", b"failure", b"success"]


def test_a_plain_job_without_a_time_limit_is_not_called_abandoned(
    children: Children, queue: Queue, tmp_path: Path
) -> None:
    """Pitfall: RQ's SimpleWorker renews nothing, and RQ calls such a job abandoned after 7 minutes."""
    gate = tmp_path / "gate"
    job = queue.enqueue(f"{PLAINLY}hold_plainly", str(gate), job_timeout=-1, result_ttl=60)
    start(children, **OFTEN)
    wait_until_begun(gate)
    registry = StartedJobRegistry(queue=queue)
    redis: Any = queue.connection
    (entry,) = redis.zrange(registry.key, 0, -1)
    (execution,) = job.get_executions()
    (worker,) = workers(queue).values()
    redis.zadd(registry.key, {entry: current_timestamp() + 50})
    redis.expire(execution.key, 50)
    redis.expire(worker.key, 50)
    wait_until(lambda: redis.zscore(registry.key, entry) > current_timestamp() + 60, 40)
    assert redis.ttl(execution.key) > 60
    assert redis.ttl(worker.key) > 60
    gate.touch()
    wait_until(lambda: status(job) == "finished", 20)


@pytest.mark.slow
def test_a_plain_job_writes_no_heartbeat_after_its_function(
    children: Children, queue: Queue
) -> None:
    """RQ writes it alone, and then at once with the success."""

    def calls(command: str) -> int:
        found: int = queue.connection.info("commandstats")[f"cmdstat_{command}"]["calls"]
        return found

    def run(jobs: int) -> list[int]:
        """How many transactions and writes of hashes a burst of so many jobs takes."""
        found = [queue.enqueue("os.getpid", result_ttl=60) for _ in range(jobs)]
        before = calls("exec"), calls("hset")
        worker = children.flask("opsjobs", "worker", "default", "--burst", "--no-scheduler")
        assert worker.wait(20) == 0
        after = calls("exec"), calls("hset")
        assert {status(job) for job in found} == {"finished"}
        return [now - then for now, then in zip(after, before, strict=True)]

    few, many = run(1), run(101)
    # A heartbeat of the worker may write a few more.
    transactions, writes = (round((b - a) / 100) for a, b in zip(few, many, strict=True))
    # Two before the function. Of the execution, the worker's state, its heartbeat, that of the job, and the
    # job; then of the job twice, and the worker's state.
    assert (transactions, writes) == (3, 8)


NEVER_LOOKS = """
import sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker import parent
from flask_opsjobs.engine.worker.parent import WorkerOptions
from tests.support.host import create_app

parent.Parent._timeout_ms = lambda _: 60_000
app = create_app()
with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions(burst=True)))
"""


def test_a_burst_ends_when_it_finds_nothing(children: Children, queue: Queue) -> None:
    """And not when the worker looks the next time."""
    plain = queue.enqueue("os.getpid", result_ttl=60)
    assert children.python("-c", NEVER_LOOKS).wait(20) == 0
    assert status(plain) == "finished"


HAS_LITTLE_PATIENCE = """
import sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker import parent, rq_slots
from flask_opsjobs.engine.worker.parent import WorkerOptions
from tests.support.host import create_app

parent.ERRAND_SECONDS = rq_slots._OVERDUE_SECONDS = 1
app = create_app()
with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions(with_scheduler=False)))
"""


def test_a_plain_job_that_heeds_no_time_limit_is_killed(children: Children, queue: Queue) -> None:
    job = queue.enqueue(f"{PLAINLY}hang_plainly", job_timeout=1)
    after = queue.enqueue("os.getpid", result_ttl=60)
    children.python("-c", HAS_LITTLE_PATIENCE)
    wait_until(lambda: (status(job), status(after)) == ("failed", "finished"), 20)
    assert "its time limit could not stop it" in str(job.latest_result().exc_string)


@pytest.mark.slow
def test_a_callback_or_a_webhook_that_hangs_holds_nobody_up(
    children: Children, queue: Queue, tmp_path: Path
) -> None:
    """A callback of a stopped job, one of an abandoned job, and a webhook of a job whose process died."""
    hang = Callback(f"{PLAINLY}hang_plainly", timeout=1)
    abandoned = queue.enqueue("os.getpid", on_failure=hang)
    queue.empty()
    abandoned.save()
    abandoned.set_status(JobStatus.STARTED)
    registry = StartedJobRegistry(queue=queue)
    queue.connection.zadd(registry.key, {f"{abandoned.id}:execution": 1})
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        webhook = Webhook(f"http://{host}:{port}/", "failed", timeout=1000)
        dying = queue.enqueue(f"{PLAINLY}die_plainly", str(tmp_path / "pid"), webhooks=[webhook])
        worker = children.python("-c", HAS_LITTLE_PATIENCE)
        wait_until(lambda: (tmp_path / "pid").exists(), 20)
        gate = tmp_path / "gate"
        stopped = queue.enqueue(f"{PLAINLY}hold_plainly", str(gate), on_stopped=hang)
        wait_until_begun(gate)
        send_stop_job_command(queue.connection, stopped.id)
        job_id, plain = enqueue(add, a=1, b=1), queue.enqueue("os.getpid", result_ttl=60)
        wait_until(lambda: (state_of(job_id), status(plain)) == ("finished", "finished"), 20)
        assert status(stopped) == "started", "its callback hangs, and the worker goes on"
        wait_until(lambda: (status(dying), status(stopped)) == ("failed", "stopped"), 20)
    assert "RQ's maintenance failed: its process died" in worker.log
    assert worker.terminate() == 0
