"""The bundle of a job and of its attempts, compared with what the engine of the test did to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask import Flask

from flask_opsjobs import JobFilter, OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.display import NO_PAYLOAD, Display
from flask_opsjobs.forensics.json import make_canonical, write_bundle_json
from flask_opsjobs.forensics.shown import show_bundle
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.lifeline import retention
from flask_opsjobs.loops import operate
from flask_opsjobs.operations.operator import BulkOperator
from tests.support.engine import Bench
from tests.support.policies import ShowAll

from .conftest import WHY, Story, actions, texts

RecordJob = Callable[..., int]
BOOM = Outcome(kind="raised", error="Boom: secret of a customer", failure_key=bytes(16).hex())
RETURNED = Outcome(kind="returned")


def test_a_job_that_failed_and_was_retried_is_told_whole(
    story: Story, bench: Bench, record_job: RecordJob
) -> None:
    job = record_job(max_attempts=1)
    log = ["Enqueued"]
    bench.dispatch()
    bench.claim(job)
    log.append("Attempt 1 begun by worker-1")
    bench.record(job, 1, BOOM)
    log.append("Attempt 1 ended, raised")
    story.operator.retry(job, **WHY)
    log.append("ops-demo: retry")
    bench.dispatch()
    log.append("Queued, dispatch 2")
    bench.claim(job, 2)
    log.append("Attempt 2 begun by worker-1")
    bench.record(job, 2, RETURNED)
    log += ["Attempt 2 ended, returned", "Finished: the function returned"]
    story.later(60)

    found = story.ask(f"job/{job}")
    assert texts(found) == log
    assert (found.completeness, found.state, found.lacking) == ("complete", "finished", [])
    assert found.diagnosis == "It finished after 2 attempts: the function returned."
    sources = {event.text: event.source for event in found.timeline.events}
    assert sources["Enqueued"] == "host"
    assert sources["Queued, dispatch 2"] == "dispatcher"
    assert sources["ops-demo: retry"] == "operator"
    assert sources["Attempt 1 ended, raised"] == "worker"
    (attempts,) = found.evidence
    assert [row.subject for row in attempts.rows] == [f"attempt/{job}-2", f"attempt/{job}-1"]
    assert [(path.action, path.owner) for path in found.paths] == [
        ("job.run_again", "OpsJobs-native"),
        ("job.delete", "OpsJobs-native"),
    ]


def test_a_job_that_waits_says_why_and_what_helps(
    story: Story, bench: Bench, record_job: RecordJob
) -> None:
    job = record_job()
    bench.dispatch()
    story.later(20)
    waits = story.ask(f"job/{job}")
    (bridge,) = [path for path in waits.paths if path.kind == "bridge"]
    assert bridge.owner == "RQ bridge"
    assert (bridge.target, bridge.refusal) == (f"rq/default/opsjobs-{job}-1", None)
    assert f"opsjobs-{job}-1" in bridge.title
    story.operator.pause("default", **WHY)
    found = story.ask(f"job/{job}")
    assert "is paused" in found.diagnosis
    assert WHY["reason"] in found.diagnosis
    # Its dispatch was taken back, and nobody keeps when.
    assert found.completeness == "partial evidence"
    assert [lack.says for lack in found.lacking] == [
        "When and why dispatch 1 ended without an attempt"
    ]
    assert {"job.cancel", "job.discard"} <= set(actions(found))


def test_a_queued_job_is_not_seen_while_nobody_looks_for_its_delivery(
    story: Story, bench: Bench, record_job: RecordJob
) -> None:
    job = record_job()
    bench.dispatch()
    story.later(10)
    assert story.ask(f"job/{job}").completeness == "complete"
    story.later(60, without=("recall",))
    found = story.ask(f"job/{job}")
    assert found.completeness == "partial evidence"
    (lack,) = found.lacking
    assert lack.says == "Where its delivery was is not known."
    assert lack.until is None  # it still does not run
    assert texts(found) == [
        "Enqueued",
        "Queued, dispatch 1",
        "The loop recall did not run. Where its delivery was is not known.",
    ]


def test_the_end_of_a_lost_attempt_is_inferred(
    story: Story, bench: Bench, record_job: RecordJob
) -> None:
    job = record_job(max_attempts=1)
    bench.dispatch()
    bench.claim(job)
    story.later(5)
    running = story.ask(f"job/{job}")
    assert running.completeness == "complete"
    # The worker registered, and never sent another heartbeat.
    log = [
        "Last heartbeat of worker-1",
        "Enqueued",
        "Queued, dispatch 1",
        "Attempt 1 begun by worker-1",
    ]
    assert texts(running) == log
    story.watch_for(bench.host.settings.missing_seconds + 20)
    found = story.ask(f"job/{job}")
    (ended,) = [
        event for event in found.timeline.events if event.text.startswith("Attempt 1 ended")
    ]
    assert ended.is_inferred
    assert found.completeness == "partial evidence"
    assert "its worker was lost" in found.lacking[0].says
    attempt = story.ask(f"attempt/{job}-1")
    assert (attempt.state, attempt.completeness) == ("lost", "partial evidence")
    assert {f"job/{job}"} == {path.target for path in attempt.paths}


def test_a_job_whose_row_is_gone_is_told_from_audit_and_operations(
    story: Story, bench: Bench, record_job: RecordJob
) -> None:
    job, later = record_job(), record_job()
    story.operator.cancel(job, **WHY)
    keep = bench.host.settings.keep_canceled_days
    retention.retain(bench.connection, bench.host.settings, story.now + timedelta(days=keep + 1))
    found = story.ask(f"job/{job}")
    assert (found.completeness, found.state) == ("history unavailable", None)
    assert texts(found) == ["ops-demo: cancel"]
    assert found.paths == []
    assert story.ask(f"attempt/{job}-1").completeness == "history unavailable"
    never = story.ask(f"job/{later + 1}")
    assert (never.completeness, texts(never)) == ("unknown", [])
    assert story.ask(f"attempt/{later}-1").completeness == "unknown"


def test_a_job_that_an_operation_canceled_is_told_from_its_receipt(
    story: Story, bench: Bench, record_job: RecordJob
) -> None:
    job = record_job(queue="mail")
    operator = BulkOperator(bench.host)
    operation = operator.start("job.cancel", JobFilter(queue="mail"), **WHY)
    story.run(operate.LOOP)
    log = {"Enqueued", "Operation 1, cancel: done", "Operation 1 began: job cancel, 1 target"}
    whole = story.ask(f"job/{job}")
    assert log <= set(texts(whole))
    story.operator.run("job.delete", [f"job/{job}"], **WHY)
    record_job()
    found = story.ask(f"job/{job}")
    assert found.completeness == "history unavailable"
    assert "Operation 1, cancel: done" in texts(found)
    assert "ops-demo: delete" in texts(found)
    assert f"operation/{operation.id}" in {event.subject for event in found.timeline.events}


def test_a_job_with_very_many_attempts_says_what_is_left_out(
    story: Story, bench: Bench, record_job: RecordJob
) -> None:
    job = record_job()
    bench.connection.execute(
        """
        INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at, ended_at, outcome)
        SELECT %s, n, n, 'worker-1', now() + n * interval '1 ms', now() + n * interval '1 ms', 'snoozed'
        FROM generate_series(1, 20000) AS n
        """,
        [job],
    )
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET dispatch_no = 20000, attempt = 20000 WHERE id = %s", [job]
    )
    found = story.ask(f"job/{job}")
    assert found.completeness == "complete"
    (left_out,) = found.timeline.left_out
    assert left_out.what == "attempts"
    assert left_out.before is not None
    assert len(found.timeline.events) == 2 * 50 + 1


def test_texts_pass_the_display_policy_and_payload_needs_its_permission(
    story: Story, bench: Bench, record_job: RecordJob
) -> None:
    job = record_job(max_attempts=1)
    bench.dispatch()
    bench.claim(job)
    bench.record(job, 1, BOOM)

    class Hides(ShowAll):
        def clean_text(self, text: str) -> str:
            return text.replace("secret", "[hidden]")

    for subject in (f"job/{job}", f"attempt/{job}-1"):
        found = story.ask(subject)
        whole = write_bundle_json(
            show_bundle(found, Display(Hides(), may_see=True)), "anna", "test"
        )
        assert b"secret" not in whole
        assert b"Boom: [hidden] of a customer" in whole
        without = write_bundle_json(
            show_bundle(found, Display(Hides(), may_see=False)), "anna", "test"
        )
        assert b"customer" not in without
        assert NO_PAYLOAD.encode() in without


def test_json_is_equal_for_equal_input_and_names_reader_time_and_hash(
    story: Story, record_job: RecordJob
) -> None:
    found = show_bundle(story.ask(f"job/{record_job()}"), Display(ShowAll(), may_see=True))
    written = write_bundle_json(found, "anna", "test")
    assert written == write_bundle_json(found, "anna", "test")
    values: dict[str, Any] = json.loads(written)
    assert (values["format"], values["type"]) == (1, "opsjobs.forensics")
    assert (values["reader"], values["environment"]) == ("anna", "test")
    assert values["read_at"] == found.read_at.isoformat()
    claimed = values.pop("sha256")
    assert claimed == hashlib.sha256(make_canonical(values)).hexdigest()
    assert write_bundle_json(found, "otto", "test") != written


def test_the_command_and_python_tell_the_same(
    app: Flask, opsjobs: OpsJobs, record_job: RecordJob, bench: Bench
) -> None:
    job = record_job(delay=60)
    Operator(bench.host).pause("default", **WHY)
    said = app.test_cli_runner().invoke(args=["opsjobs", "forensics", f"job/{job}"])
    assert said.exit_code == 0, said.output
    values = json.loads(said.stdout)
    found = opsjobs.forensics(f"job/{job}")
    assert values["diagnosis"] == found.diagnosis
    assert [path["owner"] for path in values["paths"]] == [path.owner for path in found.paths]
    unknown = app.test_cli_runner().invoke(args=["opsjobs", "forensics", f"job/{job + 1}"])
    assert unknown.exit_code == 1
    assert json.loads(unknown.stdout)["completeness"] == "unknown"
    unreadable = app.test_cli_runner().invoke(args=["opsjobs", "forensics", "job/abc"])
    assert unreadable.exit_code == 2
    assert "'job/abc' names no subject" in unreadable.stderr
