"""The loop `escalate`: each state, each event once, and what is stored of a call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import endings, signals
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.audit.models import AuditEvent
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline import incidents
from flask_opsjobs.lifeline.detectors import DETECTORS
from flask_opsjobs.lifeline.finding import Facts
from flask_opsjobs.lifeline.retention import count_retainable, retain
from flask_opsjobs.loops import detect, watch
from flask_opsjobs.loops.loop import Runner
from tests.escalations.telling import CLASS, SUBJECT, Teller
from tests.support.engine import Bench
from tests.support.escalating import SECRET, Acting
from tests.support.waiting import wait_until

pytestmark = pytest.mark.processes
WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}


@pytest.fixture
def make_teller(host: Host) -> Iterator[Callable[..., Teller]]:
    """Makes processes of the loops, as far as they escalate."""
    made: list[Teller] = []

    def make(process: str = "one") -> Teller:
        made.append(Teller(host, process))
        return made[-1]

    yield make
    for teller in made:
        teller.close()


@pytest.fixture
def teller(make_teller: Callable[..., Teller]) -> Teller:
    return make_teller()


# --- the states


def test_without_a_policy_it_is_unconfigured(teller: Teller, host: Host) -> None:
    host.escalation = None
    teller.find()
    teller.once()
    assert teller.told() == [(1, "opened", "unconfigured")]
    assert teller.rows("SELECT id FROM opsjobs.jobs") == []
    assert teller.rows("SELECT id FROM opsjobs.workers") == [], "nobody serves the queue"
    teller.wait(3601)
    teller.find()
    teller.once()
    teller.clear()
    teller.once()
    assert teller.told() == [(1, "opened", "unconfigured"), (1, "reminded", "unconfigured")]


def test_it_is_invoked_with_its_reference(
    teller: Teller, policy: Acting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sent: list[dict[str, Any]] = []
    receive = lambda _, **facts: sent.append(facts)  # noqa: E731
    signals.escalation_ended.connect(receive)
    incident = teller.find(affected=3)
    teller.look()
    row = teller.row("SELECT * FROM opsjobs.escalations")
    assert (row["state"], row["reference"], row["why"]) == ("invoked", f"TICKET-{incident}", None)
    (facts,) = policy.told()
    assert facts["key"] == f"incident/{incident}/1/opened"
    assert facts["title"] == "Nobody serves the queue mail"
    assert (facts["event"], facts["attempt"], facts["affects"]) == ("opened", 1, "3 jobs")
    assert facts["path"] == f"/ops/jobs/lifeline/incidents/{incident}"
    job = teller.row("SELECT * FROM opsjobs.jobs WHERE id = %s", row["job_id"])
    assert (job["state"], job["queue"], job["task"]) == ("finished", "opsjobs", "opsjobs.escalate")
    assert sent == [{"incident": incident, "episode": 1, "event": "opened", "state": "invoked"}]
    assert f"opened: invoked (TICKET-{incident})" in caplog.text


def test_it_fails_with_why_after_its_attempts(teller: Teller, policy: Acting) -> None:
    policy.act("raises")
    teller.find()
    for _ in range(5):
        teller.look()
        teller.wait(3600 * 24)
        teller.connection.execute(
            "UPDATE opsjobs.jobs SET state = 'available' WHERE state = 'retryable'"
        )
        teller.wait(-3600 * 24)
    row = teller.row("SELECT * FROM opsjobs.escalations")
    assert row["state"] == "failed"
    assert row["why"] == "RuntimeError: the pager says [hidden]"
    assert [facts["attempt"] for facts in policy.told()] == [1, 2, 3, 4, 5]
    assert len({facts["key"] for facts in policy.told()}) == 1
    job = teller.row("SELECT * FROM opsjobs.jobs")
    assert (job["state"], job["attempt"], job["error"]) == ("failed", 5, row["why"])
    stored = repr([*teller.rows("SELECT * FROM opsjobs.attempts"), job, row])
    assert SECRET not in stored

    # An incident says so, and to retry its job repairs it.
    _detect_escalation_failed(teller)
    policy.act("")
    Operator(teller.host).retry(job["id"], **WHY)
    teller.look()
    assert teller.told()[0] == (1, "opened", "invoked")
    facts = Facts(teller.connection, teller.now, teller.host.settings)
    detector = DETECTORS["escalation_failed"]
    assert detector.detect is not None
    assert detector.detect(facts).findings == []


def _detect_escalation_failed(teller: Teller) -> None:
    Runner(detect.LOOP, teller.host).run_once(teller.connection, teller.now)
    found = teller.row("SELECT * FROM opsjobs.incidents WHERE class = 'escalation_failed'")
    assert found["severity"] == "warning"
    teller.host.settings = _with(teller.host, escalate_from="warning")
    teller.once()
    ids = [row["incident_id"] for row in teller.rows("SELECT * FROM opsjobs.escalations")]
    assert found["id"] not in ids, "it would fail in the same way"


def _with(host: Host, **settings: Any) -> Any:
    return replace(host.settings, **settings)


def test_a_failed_attempt_waits_ten_seconds(teller: Teller, policy: Acting) -> None:
    policy.act("raises")
    teller.find()
    teller.look()
    assert teller.told() == [(1, "opened", "pending")]
    row = teller.row("SELECT state, due_at - %s AS wait FROM opsjobs.jobs", teller.now)
    assert row == {"state": "retryable", "wait": timedelta(seconds=10)}
    why = teller.row("SELECT why FROM opsjobs.escalations")["why"]
    assert why == "RuntimeError: the pager says [hidden]"


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("canceled", "its job {} is canceled"),
        ("discarded", "its job {} is failed"),
        ("deadline", "no process called the policy within a day"),
        ("deleted", "its job was deleted"),
    ],
)
def test_a_job_that_ends_without_a_call(
    teller: Teller, host: Host, policy: Acting, end: str, why: str
) -> None:
    policy.act("raises")
    teller.find()
    teller.look()
    job = teller.row("SELECT id FROM opsjobs.jobs")["id"]
    policy.act("")
    operator = Operator(host)
    match end:
        case "canceled":
            operator.cancel(job, **WHY)
        case "discarded":
            operator.discard(job, **WHY)
        case "deadline":
            endings.expire(teller.connection, teller.now + timedelta(days=1, seconds=1))
        case "deleted":
            operator.cancel(job, **WHY)
            operator.delete(job, **WHY)
    teller.look()
    row = teller.row("SELECT state, why FROM opsjobs.escalations")
    assert row["state"] == "failed"
    assert row["why"].endswith(why.format(job))
    assert len(policy.told()) == 1


# --- each event once


def test_the_life_of_an_incident_is_told(teller: Teller, policy: Acting) -> None:
    incident = teller.find()
    teller.look()
    teller.wait(3599)
    teller.find()
    teller.look()
    assert [facts["event"] for facts in policy.told()] == ["opened"]
    teller.wait(1)
    for _ in range(3):
        teller.find()
        teller.look()
        teller.wait(3600)
    teller.clear()
    teller.look()
    teller.look()
    assert teller.told() == [(1, event, "invoked") for event in ("opened", "reminded", "resolved")]
    assert [facts["state"] for facts in policy.told()] == ["open", "open", "resolved"]
    last = policy.told()[-1]
    assert (last["resolved_by"], last["incident"]) == ("cleared", incident)
    assert last["resolved_at"] is not None


def test_a_third_episode_within_an_hour_is_flapping(teller: Teller, policy: Acting) -> None:
    for _ in range(5):
        teller.find()
        teller.look()
        teller.clear()
        teller.look()
        teller.wait(60)
    told = [(facts["episode"], facts["event"]) for facts in policy.told()]
    assert told == [
        (1, "opened"),
        (1, "resolved"),
        (2, "opened"),
        (2, "resolved"),
        (3, "flapping"),
        (3, "resolved"),
    ]


def test_an_acknowledged_one_is_told_when_that_is_taken_back(
    teller: Teller, policy: Acting
) -> None:
    incident = teller.find()
    teller.acknowledge(incident)
    teller.look()
    assert policy.told() == []
    teller.unacknowledge(incident)
    teller.look()
    assert teller.told() == [(1, "opened", "invoked")]
    teller.acknowledge(incident)
    teller.wait(7200)
    teller.look()
    assert len(policy.told()) == 1


def test_what_follows_from_another_one_is_not_told(teller: Teller, policy: Acting) -> None:
    at = teller.now.isoformat()
    teller.find(
        "postgres_away", "postgres", facts={"began_at": at, "ended_at": at, "why": "refused"}
    )
    teller.find()
    teller.look()
    assert [facts["class"] for facts in policy.told()] == ["postgres_away"]
    teller.clear("postgres_away", "postgres")
    teller.find()
    teller.look()
    told = [(facts["class"], facts["event"]) for facts in policy.told()]
    assert told[1:] == [("postgres_away", "resolved"), (CLASS, "opened")]


def test_an_operators_action_repaired_it(
    teller: Teller, policy: Acting, db: SQLAlchemy, record_job: Callable[..., int]
) -> None:
    record_job(queue="mail")
    teller.find()
    teller.look()
    teller.wait(1)
    Operator(teller.host).pause("mail", **WHY)
    at = db.session.query(AuditEvent.at).one()[0]
    teller.now = max(teller.now, at)
    teller.clear()
    teller.look()
    last = policy.told()[-1]
    assert (last["event"], last["repair"], last["repaired_by"]) == (
        "repaired",
        "queue.pause",
        "ada",
    )
    assert teller.told()[-1] == (1, "repaired", "invoked")


@pytest.mark.parametrize("who", ["ada", "system"])
def test_a_rescue_repaired_it(
    teller: Teller, policy: Acting, bench: Bench, record_job: Callable[..., int], who: str
) -> None:
    """By an operator or by the loop `watch`: then the incident of the worker names no job any more."""
    by_hand = _with(teller.host, escalate_from="warning", rescue="manual")
    teller.host.settings = by_hand
    job = record_job()
    bench.dispatch()
    bench.claim(job)
    bench.rows(
        "UPDATE opsjobs.workers SET state = 'missing', ended_at = clock_timestamp()"
        " WHERE id = %s RETURNING 1",
        bench.worker_id,
    )
    teller.wait(1)
    _detect(teller, "worker_missing")
    teller.look()
    assert teller.told() == [(1, "opened", "invoked")]
    teller.wait(1)
    if who == "ada":
        Operator(teller.host).run("job.rescue", [f"job/{job}"], **WHY, now=teller.now)
    else:
        teller.host.settings = replace(by_hand, rescue="automatic")
        Runner(watch.LOOP, teller.host).run_once(teller.connection, teller.now)
    assert bench.job(job)["worker_id"] is None
    for seconds in (1, 300, 60):
        teller.wait(seconds)
        _detect(teller, "worker_missing")
    teller.look()
    last = policy.told()[-1]
    told = (last["event"], last["repair"], last["repaired_by"])
    assert told == ("repaired", "job.rescue", who)
    assert teller.told()[-1] == (1, "repaired", "invoked")


def _detect(teller: Teller, class_: str) -> None:
    """Make a pass of one detector."""
    detector = DETECTORS[class_]
    assert detector.detect is not None
    found = detector.detect(Facts(teller.connection, teller.now, teller.host.settings))
    incidents.apply_pass(teller.connection, class_, found, teller.now)


def test_a_pass_is_told_what_it_did(teller: Teller) -> None:
    teller.find()
    teller.look()
    reports = teller.row("SELECT report, error FROM opsjobs.loop_runs WHERE loop = 'escalate'")
    assert reports["error"] is None


# --- who takes the job


def test_no_worker_takes_it_and_nothing_of_it_is_dispatched(
    teller: Teller, policy: Acting, bench: Any
) -> None:
    policy.act("raises")
    teller.find()
    teller.look()
    teller.connection.execute("UPDATE opsjobs.jobs SET state = 'available'")
    assert bench.dispatch_all() == 0
    assert bench.dispatch("opsjobs") == 0
    teller.connection.execute("UPDATE opsjobs.workers SET ended_at = now(), state = 'stopped'")
    found = Facts(teller.connection, teller.now + timedelta(hours=1), teller.host.settings)
    unserved = DETECTORS["queue_unserved"].detect
    assert unserved is not None
    assert [each.subject for each in unserved(found).findings] == []


def test_a_paused_queue_calls_nobody(teller: Teller, policy: Acting, host: Host) -> None:
    policy.act("raises")
    teller.find()
    teller.look()
    Operator(host).pause("opsjobs", **WHY)
    teller.find(subject="queue/other")
    teller.look()
    assert len(policy.told()) == 1
    policy.act("")
    Operator(host).resume("opsjobs", **WHY)
    teller.look()
    assert [facts["subject"] for facts in policy.told()] == ["queue/mail", "queue/other"]


def test_a_canceled_call_is_broken_off(teller: Teller, policy: Acting, host: Host) -> None:
    policy.act("hangs")
    teller.find()
    teller.once()
    hangs = policy.calls.with_name("hangs")
    wait_until(hangs.exists)
    job = teller.row("SELECT id, state FROM opsjobs.jobs")
    assert job["state"] == "started"
    Operator(host).cancel(job["id"], **WHY)
    heartbeat = teller.server._heartbeat
    assert heartbeat is not None
    heartbeat.beat_now()
    teller.look()
    assert teller.told() == [(1, "opened", "failed")]
    assert teller.row("SELECT state FROM opsjobs.jobs")["state"] == "canceled"


def test_two_processes_call_once(make_teller: Callable[..., Teller], policy: Acting) -> None:
    one, other = make_teller("one"), make_teller("other")
    for number in range(4):
        one.find(subject=f"queue/q{number}")
    other.now = one.now

    def are_over() -> bool:
        one.once()
        other.once()
        return [state for _, _, state in one.told()] == ["invoked"] * 4

    wait_until(are_over)
    keys = [facts["key"] for facts in policy.told()]
    assert len(keys) == len(set(keys)) == 4
    workers = {row["worker_id"] for row in one.rows("SELECT worker_id FROM opsjobs.attempts")}
    assert len(workers) == 2


def test_a_job_that_runs_again_calls_nobody_twice(
    teller: Teller, policy: Acting, host: Host
) -> None:
    teller.find()
    teller.look()
    job = teller.row("SELECT id FROM opsjobs.jobs")["id"]
    Operator(host).run_again(job, **WHY)
    teller.look()
    assert len(policy.told()) == 1
    assert {row["state"] for row in teller.rows("SELECT state FROM opsjobs.jobs")} == {"finished"}


def test_what_a_process_lost_is_called_again_and_invoked_once(
    make_teller: Callable[..., Teller], policy: Acting
) -> None:
    """Its process vanished in the call, and the watch loop gives the job back, also under `manual`."""
    gone = make_teller("gone")
    gone.host.settings = _with(gone.host, rescue="manual")
    policy.act("hangs")
    gone.find()
    gone.once()
    wait_until(policy.calls.with_name("hangs").exists)
    gone.connection.execute("UPDATE opsjobs.workers SET pid_started_at = 1")
    policy.act("")
    Runner(watch.LOOP, gone.host).run_once(gone.connection)
    gone.server._caller.close()
    other = make_teller("other")
    other.look()
    assert [facts["attempt"] for facts in policy.told()] == [1, 2]
    assert len({facts["key"] for facts in policy.told()}) == 1
    assert other.told() == [(1, "opened", "invoked")]
    detectors = Facts(other.connection, other.now, other.host.settings)
    missing = DETECTORS["worker_missing"].detect
    assert missing is not None
    assert missing(detectors).findings == [], "the process of the loops is not a worker of hosts"


def test_a_stop_waits_for_the_call(make_teller: Callable[..., Teller], policy: Acting) -> None:
    teller = make_teller()
    teller.find()
    teller.once()
    assert teller.server.is_busy
    teller.runner.stop(teller.connection)
    assert teller.told() == [(1, "opened", "invoked")]
    (worker,) = teller.rows("SELECT kind, state, queues FROM opsjobs.workers")
    assert worker == {"kind": "loops", "state": "stopped", "queues": ["opsjobs"]}


def test_retention_keeps_what_was_told_of_an_active_episode(teller: Teller) -> None:
    teller.find()
    teller.look()
    late = teller.now + timedelta(days=91)
    settings = teller.host.settings
    assert retain(teller.connection, settings, late).get("escalations") == 0
    teller.clear()
    late = teller.now + timedelta(days=89)
    assert count_retainable(teller.connection, settings, late)["escalations"] == 0
    settings = _with(teller.host, keep_incidents_days=400)
    late = teller.now + timedelta(days=91)
    assert count_retainable(teller.connection, settings, late)["escalations"] == 1
    assert retain(teller.connection, settings, late)["escalations"] == 1
    assert teller.told() == []


def test_subject_is_what_the_incident_is_about(teller: Teller, policy: Acting) -> None:
    teller.find()
    teller.look()
    assert policy.told()[0]["subject"] == SUBJECT
