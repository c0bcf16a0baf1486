"""`flask opsjobs restore` names the plain jobs that a Redis has lost, ends them, and is audited."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from redis import Redis
from rq import Queue

from flask_opsjobs.cli import opsjobs as group
from flask_opsjobs.engine.adopted.memory import Memory
from tests.engine.adopted.conftest import Adopter, return_it
from tests.support.engine import Bench
from tests.support.guides import is_shown, outputs

Run = Callable[..., str]
TASK = f"{__package__}.conftest.return_it"


@pytest.fixture
def run(app: Flask, adopter: Adopter) -> Run:
    """Runs `flask opsjobs restore …`; what it printed."""

    def run(*words: str, code: int = 0) -> str:
        done = app.test_cli_runner().invoke(group, ["restore", *words])
        assert done.exit_code == code, done.output
        return done.output

    return run


# Steps without time between them: the command reads the clock of Postgres.


def audited(bench: Bench) -> list[tuple[str, str, str, str | None]]:
    rows = bench.rows("SELECT * FROM opsjobs.audit_events ORDER BY sequence")
    return [(row["actor"], row["action"], row["outcome"], row["code"]) for row in rows]


def test_lost_plain_jobs_are_named_and_become_unknown(
    adopter: Adopter, queue: Queue, work: Callable[[], None], redis_client: Redis, run: Run
) -> None:
    queue.enqueue(return_it, job_id="ended")
    work()
    queue.enqueue(return_it, 7, job_id="lost")
    adopter.step(0)
    looked_at = adopter.now
    redis_client.flushdb()
    queue.enqueue(return_it, job_id="new")
    job = adopter.job("lost")
    named = f"  job {job['id']}: {TASK}, lost of queue mail"
    said = run("--dry-run").splitlines()
    assert said == ["Redis default: 1 plain job gone before anybody saw an end", named]
    assert adopter.job("lost") == job, "a dry run writes nothing"
    assert audited(adopter.bench) == []
    said = run("--actor", "anna", "--reason", "the disk was full").splitlines()
    assert named in said
    assert said[-1].endswith("dispatched 0 jobs, 1 plain job ended unknown")
    gone = adopter.job("lost")
    assert (gone["state"], gone["ended_by"], gone["ended_source"]) == (
        "unknown",
        "unseen",
        "observer",
    )
    assert looked_at == gone["ended_after"] < gone["ended_at"]
    assert gone["arguments"] == '{"*args": [7]}', "what it was called with is still shown"
    assert adopter.job("ended")["state"] == "finished"
    assert run("--dry-run") == "Redis lacks nothing\n"
    (row,) = adopter.bench.rows("SELECT * FROM opsjobs.audit_events")
    assert (row["actor"], row["via"], row["action"]) == ("anna", "cli", "restore")
    assert (row["reason"], row["targets"]) == ("the disk was full", [f"job/{job['id']}"])
    assert row["after"] == {"recalled": 0, "removed": 0, "dispatched": 0, "unknown": 1}


def test_those_of_the_guide_are_named_as_it_shows(
    adopter: Adopter, redis_client: Redis, run: Run
) -> None:
    guide, command = "docs/redis-lost.md", "flask opsjobs restore --dry-run"
    shown = "".join(text for typed, text in outputs(guide) if typed == command)
    for task, rq_id, name in re.findall(r"job \d+: (\S+), (\S+) of queue (\S+)", shown):
        Queue(name, connection=redis_client).enqueue(task, job_id=rq_id)
    adopter.step(0)
    redis_client.flushdb()
    assert is_shown(guide, command, run("--dry-run"))


def test_the_adopt_loop_and_a_restore_agree(
    adopter: Adopter, queue: Queue, redis_client: Redis, run: Run
) -> None:
    """Whoever comes second changes nothing, also a copy of the loop that knows nothing yet."""
    for name in ("one", "two"):
        queue.enqueue(return_it, job_id=name)
    adopter.step(0)
    redis_client.flushdb()
    run()
    before = [adopter.job(name) for name in ("one", "two")]
    assert [row["state"] for row in before] == ["unknown", "unknown"]
    assert adopter.step(0).unseen == 0
    adopter.memory = Memory()
    assert adopter.step(0).unseen == 0
    assert [adopter.job(name) for name in ("one", "two")] == before


def test_many_lost_jobs_are_counted_and_the_first_are_named(
    adopter: Adopter, queue: Queue, redis_client: Redis, run: Run
) -> None:
    for number in range(130):
        queue.enqueue(return_it, job_id=f"job-{number}")
    adopter.step(0)
    redis_client.flushdb()
    said = run("--dry-run").splitlines()
    assert said[0] == "Redis default: 130 plain jobs gone before anybody saw an end"
    assert len(said) == 22
    assert said[-1] == "  and 110 more"
    run()
    (row,) = adopter.bench.rows("SELECT * FROM opsjobs.audit_events")
    assert (len(row["targets"]), row["after"]["unknown"]) == (100, 130)


def test_with_adopting_off_plain_jobs_are_left_alone(
    adopter: Adopter, queue: Queue, redis_client: Redis, run: Run
) -> None:
    queue.enqueue(return_it, job_id="lost")
    adopter.step(0)
    redis_client.flushdb()
    host = adopter.bench.host
    host.settings = replace(host.settings, adopt=False)
    assert run("--dry-run") == "Redis lacks nothing\n"


def test_what_a_restore_brings_back_is_audited(
    bench: Bench, record_job: Callable[..., int], redis_client: Redis, run: Run
) -> None:
    record_job()
    bench.dispatch()
    bench.rows("UPDATE opsjobs.jobs SET dispatched_at = now() - interval '1 minute' RETURNING id")
    redis_client.flushdb()
    run("--actor", "anna")
    (row,) = bench.rows("SELECT * FROM opsjobs.audit_events")
    assert row["after"] == {"recalled": 1, "removed": 0, "dispatched": 1, "unknown": 0}
    assert row["reason"] == "put back what Redis lacks"


def test_a_removal_and_its_refusal_are_audited(
    bench: Bench, record_job: Callable[..., int], run: Run
) -> None:
    record_job()
    bench.dispatch()
    run("--after-postgres", "--actor", "anna", code=1)
    bench.rows("UPDATE opsjobs.workers SET state = 'stopped', ended_at = now() RETURNING id")
    run("--after-postgres", "--actor", "anna")
    assert audited(bench) == [
        ("anna", "restore", "refused", "workers_alive"),
        ("anna", "restore", "done", None),
    ]
    row = bench.row("SELECT * FROM opsjobs.audit_events WHERE outcome = 'done'")
    assert (row["after"], row["targets"]) == ({"removed": {"default": 1}}, ["queue/default"])


def test_a_restore_happens_even_when_the_audit_cannot_be_written(
    adopter: Adopter, queue: Queue, redis_client: Redis, run: Run
) -> None:
    queue.enqueue(return_it, job_id="lost")
    adopter.step(0)
    redis_client.flushdb()
    adopter.bench.rows("DELETE FROM opsjobs.audit_head RETURNING id")
    run()
    assert adopter.job("lost")["state"] == "unknown"
    (kept,) = adopter.bench.rows("SELECT decision FROM opsjobs.audit_pending")
    assert kept["decision"]["action"] == "restore"
