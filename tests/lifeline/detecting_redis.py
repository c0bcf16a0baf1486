"""Makes deliveries, counts and servers go wrong, and what looks like it."""

from __future__ import annotations

import logging
from datetime import timedelta

import psycopg

from flask_opsjobs.core.outage import Outage
from flask_opsjobs.engine.redis.broker import broker_of, rq_id
from flask_opsjobs.lifeline import incidents
from flask_opsjobs.lifeline.detectors import postgres_away
from flask_opsjobs.lifeline.finding import DetectorPass
from flask_opsjobs.testing.valkey import Valkey
from tests.lifeline.detecting import Case, Scene

# --- delivery_lost


def _dispatched(scene: Scene) -> int:
    job_id: int = scene.get("record_job")()
    scene.bench.dispatch(prefetch=100)
    return job_id


def _flush(scene: Scene) -> None:
    """Redis loses everything. Two passes of `recall` miss the delivery, and the second takes it back."""
    _dispatched(scene)
    scene.get("redis_client").flushall()
    scene.look(1, after=6)
    scene.look(1, after=6)


def _nothing(_scene: Scene) -> None:
    """It is over by itself."""


def _pop(scene: Scene) -> None:
    """A worker has popped the delivery, and claims it between two passes."""
    job_id = _dispatched(scene)
    scene.get("redis_client").flushall()
    scene.look(1, after=6)
    scene.bench.claim(job_id)


DELIVERY_LOST = Case(_flush, _nothing, {"popped and claimed": _pop})


# --- orphan_delivery


def _orphan(scene: Scene) -> None:
    """The row of a delivery is deleted outside OpsJobs. Two passes of `recall` meet the delivery."""
    job_id = _dispatched(scene)
    scene.bench.rows("DELETE FROM opsjobs.jobs WHERE id = %s RETURNING id", job_id)
    scene.look(3)


def _commit_late(scene: Scene) -> None:
    """The host's transaction commits between two passes, as far as `recall` sees."""
    job_id = _dispatched(scene)
    row = scene.bench.row("DELETE FROM opsjobs.jobs WHERE id = %s RETURNING *", job_id)
    scene.look(1)
    assert scene.get("redis_client").exists(f"rq:job:{rq_id(job_id, 1)}")
    scene.get("record_job")()
    scene.bench.rows(
        """UPDATE opsjobs.jobs SET id = %s, state = 'queued', dispatch_no = 1, dispatched_at = %s
            WHERE state = 'available' RETURNING id""",
        row["id"],
        scene.now,
    )


ORPHAN_DELIVERY = Case(_orphan, _nothing, {"committed a moment later": _commit_late})


# --- redis_away


def use_redis(scene: Scene, valkey: Valkey) -> None:
    """Let the loops and the dispatcher of the scene use this server."""
    app = scene.get("make_app")(opsjobs=scene.get("opsjobs"), OPSJOBS_REDIS_URL=valkey.url)
    scene.bench.host.broker = broker_of(app.extensions["opsjobs"])


def _use_own_redis(scene: Scene) -> None:
    if "valkey" not in scene.memory:
        scene.memory["valkey"] = scene.get("own_valkey")
        use_redis(scene, scene.memory["valkey"])


def _kill_redis(scene: Scene) -> None:
    _use_own_redis(scene)
    scene.memory["valkey"].kill()
    scene.look(2)


def _start_redis(scene: Scene) -> None:
    scene.memory["valkey"].start()


def _time_out_once(scene: Scene) -> None:
    _use_own_redis(scene)
    scene.memory["valkey"].kill()
    scene.look(1)
    scene.memory["valkey"].start()


REDIS_AWAY = Case(
    _kill_redis,
    _start_redis,
    {"one pass without an answer": _time_out_once},
    starts_processes=True,
)


# --- redis_lost


def _restart_empty(scene: Scene, *, with_disk: bool = False) -> None:
    """A Redis with a delivery and a queue is killed and started again: it has no disk to read from."""
    _use_own_redis(scene)
    _dispatched(scene)
    scene.run("observe")
    if with_disk:
        with scene.memory["valkey"].client() as client:
            client.save()
    scene.memory["valkey"].kill()
    scene.memory["valkey"].start()


def _restart_with_disk(scene: Scene) -> None:
    _restart_empty(scene, with_disk=True)


REDIS_LOST = Case(
    _restart_empty,
    _nothing,
    {"a restart that reads everything from the disk": _restart_with_disk},
    starts_processes=True,
)


# --- integrity_off


def _count(scene: Scene) -> None:
    scene.wait(60)
    scene.run("roll_up")
    scene.run("check_integrity")


def _delete_outside(scene: Scene) -> None:
    job_id = scene.get("record_job")()
    _count(scene)
    scene.bench.rows("DELETE FROM opsjobs.jobs WHERE id = %s RETURNING id", job_id)
    scene.memory["lost"] = scene.memory.get("lost", 0) + 1
    _count(scene)
    _count(scene)


def _put_back(scene: Scene) -> None:
    """As somebody who restores the rows from a backup: past `enqueue`."""
    for _ in range(scene.memory.pop("lost")):
        scene.bench.rows(
            """INSERT INTO opsjobs.jobs
                (task, queue, lane, state, args, max_attempts, created_at, due_at)
                VALUES ('note', 'default', 'default', 'available', '{}', 1, now(), now())
                RETURNING id"""
        )
    _count(scene)


def _enqueue_in_an_open_transaction(scene: Scene) -> None:
    _count(scene)
    note = scene.get("note")
    note.enqueue(text="")  # not committed
    _count(scene)
    _count(scene)


def _change_between_counts(scene: Scene) -> None:
    """One count alone saw it."""
    job_id = scene.get("record_job")()
    _count(scene)
    scene.bench.rows("DELETE FROM opsjobs.jobs WHERE id = %s RETURNING id", job_id)
    scene.memory["lost"] = 1
    _count(scene)
    _put_back(scene)


INTEGRITY_OFF = Case(
    _delete_outside,
    _put_back,
    {
        "an enqueue in an open transaction": _enqueue_in_an_open_transaction,
        "one count": _change_between_counts,
    },
)


def take_away_deliveries(scene: Scene) -> dict[bytes, bytes]:
    """Redis loses all keys; what they held."""
    redis = scene.get("redis_client")
    saved = {key: redis.dump(key) for key in redis.scan_iter()}
    redis.flushall()
    return saved


def put_back_deliveries(scene: Scene, saved: dict[bytes, bytes]) -> None:
    """Redis has again what it held."""
    for key, value in saved.items():
        scene.get("redis_client").restore(key, 0, value)


# --- postgres_away


def _come_back_after(scene: Scene, seconds: float) -> None:
    """`tests/loops/test_process.py` stops a real server; here only the time passes."""
    found = postgres_away.find_outage(
        scene.now - timedelta(seconds=seconds), scene.now, "OperationalError: connection refused"
    )
    with scene.bench.connection.transaction():
        incidents.apply_pass(
            scene.bench.connection, "postgres_away", DetectorPass([found]), scene.now
        )


def _be_away(scene: Scene) -> None:
    _come_back_after(scene, 30)


def _lose_a_connection(scene: Scene) -> None:
    """An outage that is over at once: the process of the loops does not report it."""
    outage = Outage(logging.getLogger("tests"), "waits")
    outage.begin("one", psycopg.OperationalError("gone"), 0.0)
    outage.end("one")
    (over,) = outage.take_over()
    assert over.ended - over.began < postgres_away.SHORTEST.total_seconds()
    assert outage.take_over() == []


POSTGRES_AWAY = Case(_be_away, _nothing, {"one lost connection": _lose_a_connection})
