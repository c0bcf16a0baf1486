"""The host app of child processes; the fixture `children` tells it through the environment where it is."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import psycopg
import structlog
from flask import Flask, g
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from flask_opsjobs import Limit, OpsJobs, Unique, current_job
from flask_opsjobs.endings import advance

from .deadly import WAYS
from .escalating import Acting
from .hearing import connect_bad_receivers, hear
from .policies import AllowAll, ShowAll
from .waiting import wait_until

LOG_NAMES = ("job_id", "task", "queue", "attempt")
db = SQLAlchemy()
opsjobs = OpsJobs()


def create_app(**config: Any) -> Flask:
    """A host with the tasks below; `TEST_CONFIG_<KEY>` in the environment sets a key of its config.

    The key `HEARS` is the file for the events that its processes hear, `RECEIVERS` what other receivers do,
    and `LOG_FORMAT` the format of a handler of the root logger. `MOST_STEPS` makes turns of `advance` so
    small, `LOG_LEVEL` is that of our log, `ESCALATES_IN` is the folder of an escalation policy,
    `SENTRY_TO` and `SPANS_TO` are the files of an error tracker and a tracer, and
    `STARTS_EACH_MINUTE` declares an entry of cron for each of these files, in a process that makes no other
    app.
    """
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY="only for tests",
        SQLALCHEMY_DATABASE_URI=os.environ.get("TEST_DATABASE_URL"),
        OPSJOBS_REDIS_URL=os.environ.get("TEST_REDIS_URL"),
    )
    app.config.from_prefixed_env("TEST_CONFIG")
    app.config.update(config)
    _start_trackers(app.config)
    advance.MOST_STEPS = app.config.get("MOST_STEPS", advance.MOST_STEPS)
    logging.getLogger("flask_opsjobs").setLevel(app.config.get("LOG_LEVEL", logging.NOTSET))
    if (path := app.config.get("HEARS")) is not None:
        if (how := app.config.get("RECEIVERS")) is not None:
            connect_bad_receivers(Path(path), how)
        else:
            hear(Path(path), app.config["HEARS_IN"])
    if (given := app.config.get("LOG_FORMAT")) is not None:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(given, defaults=dict.fromkeys(LOG_NAMES, "-")))
        logging.getLogger().addHandler(handler)
    for path in app.config.get("STARTS_EACH_MINUTE", ()):
        opsjobs.cron("* * * * *", name=Path(path).name, args={"path": path})(note_start)
    db.init_app(app)
    folder = app.config.get("ESCALATES_IN")
    policies: dict[str, Any] = {"access": AllowAll(), "display": ShowAll()}
    opsjobs.init_app(app, escalation=Acting(Path(folder)) if folder else None, **policies)
    return app


def _start_trackers(config: Any) -> None:
    if "SENTRY_TO" in config or "SPANS_TO" in config:
        # Only then: the other tests show that nothing of ours imports them.
        from . import trackers

        if "SENTRY_TO" in config:
            trackers.start_sentry(config["SENTRY_TO"], config.get("SENTRY_HANGS", False))
        if "SPANS_TO" in config:
            trackers.start_tracing(config["SPANS_TO"])


@opsjobs.cron("0 0 1 1 *", name="yearly", args={"a": 1, "b": 2})
@opsjobs.task(record_output=True)
def add(a: int, b: int) -> int:
    return a + b


@opsjobs.task(record_output=True, max_attempts=5, backoff=0)
def give(value: Any = None) -> Any:
    """Returns what it got."""
    return value


@opsjobs.task(record_output=True, max_attempts=3, backoff=0)
def act(
    fails: bool = False, lists: dict[str, list[bool]] | None = None, value: Any = None
) -> dict[str, list[bool]] | None:
    """A step of a random workflow: its first attempt may fail; it returns lists for maps."""
    if fails and current_job().attempt == 1:
        raise RuntimeError("on purpose")
    return lists


@opsjobs.task
def hear_end(workflow_id: int, state: str) -> None:
    """The callback of a workflow."""


@opsjobs.task
def hear_batch(batch_id: int) -> None:
    """The callback of a batch."""


@opsjobs.task
def fill(megabytes: int) -> None:
    """Takes so much memory, and gives it back."""
    bytearray(megabytes * 2**20).count(1)


@opsjobs.task(max_attempts=3, backoff=0)
def fail(message: str = "on purpose") -> None:
    """Raises. It sets a tag of Sentry before, where that is."""
    if (sentry_sdk := sys.modules.get("sentry_sdk")) is not None:
        sentry_sdk.set_tag(f"said {message}", "yes")
    raise RuntimeError(message)


@opsjobs.task(max_attempts=3, backoff=0)
def fail_until(attempt: int) -> None:
    """Raises until its attempt of that number, which returns."""
    if current_job().attempt < attempt:
        raise RuntimeError("not yet")


@opsjobs.task(record_output=True)
def tell_workflow() -> Any:
    """Returns what a step knows of its run."""
    workflow = current_job().workflow
    return None if workflow is None else [workflow.name, workflow.step, workflow.context]


@opsjobs.task(max_attempts=2, backoff=0)
def die(attempts: int = 1) -> None:
    """SIGKILLs its own process in its first attempts."""
    if current_job().attempt <= attempts:
        logging.getLogger(__name__).warning("about to die")
        os.kill(os.getpid(), signal.SIGKILL)


@opsjobs.task(max_attempts=1)
def die_of(number: int) -> None:
    """Tells its progress, and ends its own process by a signal."""
    current_job().progress(3, 10, "third")
    os.kill(os.getpid(), number)


@opsjobs.task(max_attempts=5)
def hold(gate: str, timeout: float = 60) -> None:
    """Runs until somebody makes the file `gate`; says that it has begun by making `gate + ".begun"`."""
    Path(gate + ".begun").touch()
    wait_until(Path(gate).exists, timeout, what=gate)


@opsjobs.task(max_attempts=5)
def note(path: str, line: str) -> None:
    """Appends a line to a file: what really ran, and how often, whatever the database says."""
    with open(path, "a") as file:
        file.write(line + "\n")


@opsjobs.task(max_attempts=20, backoff=0)
def note_run(path: str, seconds: float = 0.0, gate: str | None = None) -> None:
    """Appends its job and the number of its attempt to a file, in one write. Ends when `gate` is a file."""
    job = current_job()
    with open(path, "ab", buffering=0) as file:
        file.write(f"{job.id} {job.attempt}\n".encode())
    _let_pass(seconds)
    if gate is not None:
        wait_until(Path(gate).exists, 60, what=gate)


def _let_pass(seconds: float) -> None:
    """Return so many seconds later, and leave the processor to others meanwhile."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, seconds + 60, every=seconds)


@opsjobs.task(max_attempts=1000, backoff=0)
def note_start(path: str, seconds: float = 0.0, fails: int = 0) -> None:
    """Appends to a file, in one write, that it begins: its job, the number of its attempt, its process, the
    process above it, and the time. Then it takes its time, and raises in its first so many attempts.
    """
    job = current_job()
    line = f"{job.id} {job.attempt} {os.getpid()} {os.getppid()} {time.time():.6f}\n"
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode())
    _let_pass(seconds)
    if job.attempt <= fails:
        raise RuntimeError("on purpose")


@opsjobs.task(queue="limited", max_attempts=1000, backoff=0, limit=Limit("three", concurrency=3))
def note_start_of_three(path: str, seconds: float = 0.0) -> None:
    """As `note_start`, and at most three at a time."""
    note_start.function(path, seconds)


@opsjobs.task(queue="limited", max_attempts=20, backoff=0, limit=Limit("four", concurrency=4))
def note_one_of_four(folder: str, seconds: float = 0.0) -> None:
    """As `note_run`, and at most four at a time: a fifth one notes its job in the file `over`."""
    # The kernel frees the lock of a process that dies.
    if not any(lock_if_free(Path(folder, f"place {number}")) for number in range(4)):
        note.function(str(Path(folder, "over")), str(current_job().id))
    note_run.function(str(Path(folder, "ran")), seconds)
    locks.clear()


@opsjobs.task(max_attempts=20, backoff=0, unique=Unique(by=["key"], until="ended"))
def note_only_one(folder: str, key: int) -> None:
    """Notes its job in the file `over` when another one of its key runs."""
    _hold_alone(Path(folder, f"key {key}"))


@opsjobs.task(max_attempts=20, backoff=0)
def note_slot(folder: str) -> None:
    """Notes its job in the file `over` when another one runs."""
    _hold_alone(Path(folder, "slot"))


def _hold_alone(path: Path) -> None:
    if not lock_if_free(path):
        note.function(str(path.with_name("over")), str(current_job().id))
    _let_pass(0.02)
    locks.clear()


@opsjobs.task(max_attempts=3, backoff=0, priority=0)
def kill_worker() -> None:
    """SIGKILLs the worker of its process."""
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


@opsjobs.task(max_attempts=2, backoff=0)
def misbehave(path: str, how: str) -> None:
    """As `note_run`; in its first attempt it then ends its process in one of `WAYS`, or makes it unfit."""
    note_run.function(path)
    if current_job().attempt == 1:
        WAYS[how]()


@opsjobs.task
def measure(text: str) -> None:
    """Takes a long text."""


@opsjobs.task(queue="limited", limit=Limit("account", concurrency=1, partition="account"))
def note_of_account(path: str, account: int) -> None:
    """As `note`, one at a time for each account."""
    note.function(path, str(account))


# The files that this process has locked.
locks: list[BinaryIO] = []


def lock_if_free(path: Path) -> bool:
    """Lock a file until this process ends or forgets it, unless another process has locked it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    locks.append(file)
    return True


# A table of the host: when functions began, by Postgres' clock and whatever the job's row says.
BEGUN = """CREATE TABLE IF NOT EXISTS begun (
    job_id bigint NOT NULL, attempt int NOT NULL, pid int NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp())"""


@opsjobs.task(max_attempts=5)
def witness(gate: str | None = None, dsn: str | None = None) -> None:
    """Writes a row that it has begun; with a gate it then runs until somebody makes that file.

    With a `dsn` the row is written even when the database refuses everything else of this process.
    """
    job = current_job()
    begun = {"job_id": job.id, "attempt": job.attempt, "pid": os.getpid()}
    if dsn is None:
        statement = "INSERT INTO begun (job_id, attempt, pid) VALUES (:job_id, :attempt, :pid)"
        db.session.execute(text(statement), begun)
        db.session.commit()
    else:
        statement = "INSERT INTO public.begun (job_id, attempt, pid) VALUES (%s, %s, %s)"
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(statement, list(begun.values()))
    if gate is not None:
        wait_until(Path(gate).exists, 60, what=gate)


@opsjobs.task(queue="limited", max_attempts=5, limit=Limit("lone", concurrency=1))
def witness_alone(gate: str | None = None) -> None:
    """As `witness`, and only one at a time."""
    witness.function(gate)


@opsjobs.task
def progress_then_hold(gate: str, timeout: float = 60) -> None:
    """Tells how far it is, then waits for the file `gate`."""
    current_job().progress(3, 10, "third")
    wait_until(Path(gate).exists, timeout, what=gate)


@opsjobs.task(record_output=True)
def large(size: int) -> str:
    """Returns so many characters."""
    return "x" * size


@opsjobs.task
def deaf() -> None:
    """Does not heed its time limit, as a loop in C would not."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    end = time.monotonic() + 60
    wait_until(lambda: time.monotonic() >= end, 61)


@opsjobs.task(record_output=True)
def backend_pid() -> int:
    """Which connection to Postgres it has."""
    found: int = db.session.scalar(text("SELECT pg_backend_pid()"))
    return found


def note_plainly(path: str, line: str) -> None:
    """A plain RQ job that does what `note` does."""
    note.function(path, line)


def hold_plainly(gate: str) -> None:
    """A plain RQ job that does what `hold` does."""
    hold.function(gate)


def hang_plainly(*_: Any) -> None:
    """A plain RQ job, or a callback of one, that heeds no time limit."""
    deaf.function()


def die_plainly(path: str) -> None:
    """A plain RQ job that notes its process, and kills it."""
    note.function(path, str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


def note_success(_job: Any, connection: Any, _result: Any) -> None:
    """A callback of a plain RQ job, which notes in Redis that it was called."""
    connection.rpush("noted", "success")


def note_failure(_job: Any, connection: Any, *_: Any) -> None:
    """As `note_success`, of a job that failed."""
    connection.rpush("noted", "failure")


def break_the_session() -> None:
    """A plain RQ job whose transaction fails, and that leaves it so."""
    db.session.execute(text("SELECT 1 / 0"))


def look_into_the_session() -> tuple[int, str | None]:
    """A plain RQ job: which connection to Postgres it has, and what the job before left in `g`."""
    found: int = db.session.scalar(text("SELECT pg_backend_pid()"))
    left = g.pop("left", None)
    g.left = "by the job before"
    return found, left


@opsjobs.task
def say(text: str) -> None:
    """Logs a line."""
    logging.getLogger(__name__).warning("%s", text)


@opsjobs.task
def say_structured(text: str) -> None:
    """Logs a line by structlog."""
    structlog.get_logger().warning(text)


@opsjobs.task(limit=Limit("picky", concurrency=1, when_full="reject", partition="who"))
def only(who: str) -> None:
    """For one at a time; a second call is rejected."""


@opsjobs.task(queue="limited", limit=Limit("tick", rate=20, per=1, burst=1))
def tick() -> None:
    """Nothing, twenty times a second, and never two at once."""


@opsjobs.task(queue="limited", limit=Limit("tock", rate=20, per=1, burst=20))
def tock() -> None:
    """Nothing, twenty times a second, and a second's worth at once."""


@opsjobs.task(queue="limited", max_attempts=5, limit=Limit("one", concurrency=1))
def hold_one(gate: str) -> None:
    """As `hold`, and only one at a time."""
    hold.function(gate)
