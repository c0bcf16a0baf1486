"""Postgres is away for everybody, or for the recorder alone:
deliveries and outcomes are kept, and all heals alone.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue
from sqlalchemy import event

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.db import connect_apart, is_away
from flask_opsjobs.core.outage import Backoff, Outage
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.engine.dispatch.after_commit import AfterCommitDispatch
from flask_opsjobs.engine.worker.heartbeat import Heartbeat
from flask_opsjobs.engine.worker.recorder import Recorder
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.engine.site import enqueue, rows, state_of
from tests.support.database import Administrator
from tests.support.engine import Bench
from tests.support.host import add, hold, note
from tests.support.host import db as host_db
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

KINDS = [(), ("--jobs-per-process", "1")]


def queue_notes(site: Any, path: Path, count: int) -> None:
    """Record so many jobs that each append a line to `path`, all of them in Redis."""
    why: dict[str, Any] = {"actor": "ops-demo", "reason": "room for all of them"}
    Operator(site.extensions["opsjobs"]).set_prefetch("default", count + 10, **why)
    note.enqueue_many({"path": str(path), "line": str(number)} for number in range(count))
    host_db.session.commit()


def ran(path: Path) -> list[int]:
    return sorted(int(line) for line in path.read_text().split()) if path.exists() else []


def in_redis(client: Redis) -> int:
    return Queue("default", connection=client).count


def all_finished_at_once(count: int) -> bool:
    """All finished in their first attempt. No loop runs in these tests."""
    found = rows("SELECT state, attempt, count(*) FROM opsjobs.jobs GROUP BY 1, 2")
    return found == [("finished", 1, count)]


class Holding:
    """A worker that performs one job until it is let go."""

    def __init__(self, children: Children, tmp_path: Path, *words: str, **config: Any) -> None:
        self._gate = tmp_path / "gate"
        enqueue(hold, gate=str(self._gate))
        self.child: Child = children.flask("opsjobs", "worker", "default", *words, **config)
        wait_until(Path(f"{self._gate}.begun").exists, 30)

    def let_go(self) -> None:
        self._gate.touch()


@pytest.mark.chaos
@pytest.mark.parametrize("kind", KINDS)
def test_a_read_only_database_costs_no_delivery_and_no_outcome(
    site: Any,
    children: Children,
    administrator: Administrator,
    redis_client: Redis,
    tmp_path: Path,
    kind: tuple[str, ...],
) -> None:
    holding, path = Holding(children, tmp_path, *kind), tmp_path / "ran"
    queue_notes(site, path, 20)
    worker = holding.child
    wait_until(lambda: in_redis(redis_client) == 20)
    host_db.engine.dispose()
    administrator.fail_over()
    holding.let_go()
    worker.wait_for("ReadOnlySqlTransaction", 30)
    assert in_redis(redis_client) >= 18, "two for its child at most are popped, and kept"
    assert ran(path) == []
    administrator.fail_back()
    wait_until(lambda: all_finished_at_once(21), 40)
    assert ran(path) == list(range(20))
    worker.wait_for("Postgres is back")
    assert worker.log.count("Postgres is away") == worker.log.count("Postgres is back") == 1
    assert worker.log.count("ReadOnlySqlTransaction") == 1
    assert "Traceback" not in worker.log


@pytest.mark.chaos
def test_a_plain_rq_worker_holds_its_delivery_while_the_database_is_read_only(
    site: Any, children: Children, administrator: Administrator, redis_url: str
) -> None:
    enqueue(add, a=1, b=1)
    host_db.engine.dispose()
    administrator.fail_over()
    rq = str(Path(sys.executable).with_name("rq"))
    env = {"FLASK_APP": "tests.support.host"}
    worker = children.python(rq, "worker", "--url", redis_url, "default", env=env)
    worker.wait_for("Postgres is away (ReadOnlySqlTransaction", 30)
    administrator.fail_back()
    wait_until(lambda: all_finished_at_once(1), 30)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize("kind", [KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.variants)])
def test_a_worker_that_cannot_record_takes_no_more_jobs(
    site: Any,
    children: Children,
    administrator: Administrator,
    redis_client: Redis,
    tmp_path: Path,
    kind: tuple[str, ...],
) -> None:
    """Its takes work and its recorder is refused:
    each job that it took would run again, up to its last attempt.
    """
    url = administrator.url_of_role()
    holding = Holding(children, tmp_path, *kind, SQLALCHEMY_DATABASE_URI=url)
    path, count, worker = tmp_path / "ran", 150 if kind else 1_200, holding.child
    queue_notes(site, path, count)
    administrator.cut_recorders_off()
    holding.let_go()
    worker.wait_for("takes no more jobs", 40)
    assert len(ran(path)) < 810, "800 are held, and a few deliveries were under way"
    administrator.let_recorders_in()
    wait_until(lambda: all_finished_at_once(count + 1), 60)
    assert ran(path) == list(range(count)), "each ran once"
    worker.wait_for("takes jobs again")
    worker.wait_for("Postgres is back")
    assert worker.log.count("Postgres is away") == worker.log.count("Postgres is back") == 1


@pytest.mark.slow
@pytest.mark.chaos
def test_a_worker_whose_heartbeat_cannot_be_written_takes_no_job(
    site: Any, children: Children, administrator: Administrator, redis_client: Redis
) -> None:
    url = administrator.url_of_role()
    config = {"SQLALCHEMY_DATABASE_URI": url, "OPSJOBS_HEARTBEAT_SECONDS": 0.3}
    worker = children.flask("opsjobs", "worker", "default", **config)
    worker.wait_for("listens to", 30)
    wait_until(lambda: rows("SELECT 1 FROM opsjobs.workers WHERE heartbeat_no > 0"))
    administrator.cut_recorders_off()
    worker.wait_for("takes no more jobs", 30)
    job_id = enqueue(add, a=1, b=1)
    # A pop that was under way may get it: then it is given back.
    wait_until(lambda: in_redis(redis_client) == 1 or state_of(job_id) == "available")
    administrator.let_recorders_in()
    wait_until(lambda: state_of(job_id) == "finished", 30)


class TestWhatARecorderMayHold:
    """The bounds themselves: no thread runs, and time is passed in through the interval of the heartbeat."""

    def recorder(self, host: Host, heartbeat_seconds: float = 10) -> Recorder:
        outage = Outage(logging.getLogger("flask_opsjobs.worker"), "")
        return Recorder(host, Heartbeat(1, heartbeat_seconds), outage, lambda: None)

    @pytest.mark.parametrize(("overdue", "keeps_up"), [(-10, True), (4, True), (6, False)])
    def test_a_heartbeat_may_be_overdue_for_five_seconds(
        self, host: Host, overdue: float, keeps_up: bool
    ) -> None:
        assert self.recorder(host, heartbeat_seconds=-overdue).keeps_up() is keeps_up

    def test_an_outcome_may_wait_for_five_seconds(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from flask_opsjobs.engine.worker import recorder as module

        recorder = self.recorder(host)
        recorder.collect(EndedAttempt(1, 1, 1, "one", Outcome(kind="returned")))
        recorder.submit()
        assert recorder.keeps_up()
        monkeypatch.setattr(module, "_OLDEST_UNWRITTEN_SECONDS", 0)
        assert not recorder.keeps_up()


@pytest.mark.sessions
def test_a_heartbeat_that_cannot_be_written_stays_due(bench: Bench) -> None:
    """It would come up again only after a whole interval."""
    heartbeat = Heartbeat(bench.worker_id, 60)
    heartbeat.beat_now()
    bench.connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        heartbeat.beat_if_due(bench.connection, lambda: None)
    assert heartbeat.due_in() <= 0
    bench.connection.execute("SET default_transaction_read_only = off")
    heartbeat.beat_if_due(bench.connection, lambda: None)
    assert heartbeat.due_in() > 0


def test_the_hook_after_a_commit_leaves_a_read_only_session(
    site: Any,
    administrator: Administrator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The connections that it keeps were opened while the database was read-only."""
    from flask_opsjobs.engine.dispatch import after_commit as after_commit_dispatch

    monkeypatch.setattr(after_commit_dispatch, "_PAUSE_SECONDS", 0)
    spare = site.extensions["opsjobs"].spare
    spare.close()
    administrator.fail_over()
    with spare.one(), spare.one():
        pass
    administrator.fail_back()
    host_db.engine.dispose()
    first, second = enqueue(add, a=1, b=1), enqueue(add, a=2, b=2)
    assert (state_of(first), state_of(second)) == ("queued", "queued")
    ours = [record for record in caplog.records if record.name.startswith("flask_opsjobs")]
    away, back = [record.getMessage() for record in ours]
    assert away.startswith("Postgres is away (ReadOnlySqlTransaction: cannot execute")
    assert back == "jobs are dispatched after commits again"
    assert not ours[0].exc_info


def test_the_hook_after_a_commit_is_silent_for_a_while(
    host: Host,
    record_job: Callable[..., int],
    administrator: Administrator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from flask_opsjobs.host import DueLane

    record_job()
    administrator.fail_over()
    dispatch = AfterCommitDispatch(host)
    for _ in range(3):
        dispatch.push([DueLane("default", "default")])
    administrator.fail_back()
    assert caplog.text.count("Postgres is away") == 1


def test_what_the_hosts_code_raises_at_connect_is_away(app: Any, host: Host) -> None:
    """Such as a token that could not be fetched: a delivery that was taken is kept then too."""

    def fetch_token(*_: Any) -> None:
        raise RuntimeError("no token")

    event.listen(host.engine, "do_connect", fetch_token)
    with pytest.raises(psycopg.OperationalError, match="RuntimeError while connecting") as caught:
        connect_apart(host.engine)
    assert is_away(caught.value)


def test_each_pause_is_longer_up_to_a_bound_and_random() -> None:
    backoff = Backoff(shortest=1, longest=8)
    for longest in (1, 2, 4, 8, 8):
        assert longest / 2 <= backoff.next_seconds() <= longest
    backoff.reset()
    assert backoff.next_seconds() <= 1
    pauses = {Backoff().next_seconds() for _ in range(20)}
    assert len(pauses) > 1
