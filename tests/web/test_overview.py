"""The first page: the worst in one sentence, and numbers that agree with the rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from redis import Redis
from rq.suspension import resume, suspend
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.planning import find_preview
from flask_opsjobs.engine.redis.broker import Broker
from flask_opsjobs.engine.redis.connections import RedisConnections
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline.models import LoopRun
from flask_opsjobs.overview.models import Rollup, RollupPosition
from flask_opsjobs.queues.models import Queue
from flask_opsjobs.workers.models import Worker
from tests.test_query_plans import fill
from tests.web.every import soup
from tests.web.rows import (
    ago,
    clock,
    make_deploy,
    make_entry,
    make_event,
    make_failure,
    make_incident,
    make_integrity_check,
    make_job,
    make_limited,
    make_limiter,
    make_loops,
    make_operation,
    make_pause,
    make_worker,
    paused,
)

Get = Callable[..., Any]


def _said(get: Get) -> tuple[str, str]:
    """The status and the words of the first that is wrong, or that all is well."""
    say = soup(get().text).select_one(".headline li, .say")
    assert say is not None
    return str(say["data-is"]), re.sub(
        r" since (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d( UTC)?", "", " ".join(say.text.split())
    )


def _facts(get: Get) -> list[str]:
    """All that is wrong, the worst first."""
    return [_words(one) for one in soup(get().text).select(".headline strong")]


def _well(session: Session) -> None:
    make_loops(session)
    make_worker(session, queues=["default"])
    session.commit()


def test_all_is_well(session: Session, get: Get) -> None:
    _well(session)
    make_job(session, "finished")
    session.commit()
    assert _said(get) == (
        "healthy",
        "Nothing is wrong.",
    )
    make_integrity_check(session)
    ended = make_incident(session, state="resolved")
    make_incident(session, subject="loop/notice", severity="notice")
    make_incident(session, subject="loop/known", state="acknowledged")
    make_job(session, "failed")
    make_failure(session)
    session.commit()
    assert _said(get) == (
        "healthy",
        f"Nothing is wrong. The last incident ended {clock(ended.resolved_at)} UTC. "
        "1 failed job waits for a review, none is new. No managed job is lost. See what repaired itself",
    )


def test_workers_that_rq_suspended(session: Session, get: Get, redis_client: Redis) -> None:
    _well(session)
    suspend(redis_client)
    level, words = _said(get)
    assert level == "critical"
    assert words.startswith("All workers are suspended by RQ's own command.")
    resume(redis_client)
    assert _said(get)[0] == "healthy"


def test_no_loop_has_run(get: Get) -> None:
    level, words = _said(get)
    assert level == "critical"
    assert words.startswith("No background loop has ever run.")
    assert "flask opsjobs run" in words


def test_all_loops_are_silent(session: Session, get: Get) -> None:
    make_loops(session, last_at=ago(hours=1), every_seconds=1)
    session.commit()
    assert _said(get)[1].startswith("No background loop is running.")


def test_one_loop_is_silent(session: Session, get: Get) -> None:
    _well(session)
    make_loops(session, last_at=ago(minutes=-1))
    make_loops(session, loop="vacuum", last_at=ago(hours=1), every_seconds=1)
    session.commit()
    assert _said(get)[1].startswith("The loop vacuum is silent.")


def test_without_the_loop_that_looks_nothing_is_called_well(session: Session, get: Get) -> None:
    """An older process of the loops does not know it; or its last pass is old."""
    _well(session)
    session.execute(delete(LoopRun).where(LoopRun.loop == "detect"))
    session.commit()
    level, words = _said(get)
    assert level == "critical"
    assert words.startswith("Nobody looks for incidents. The loop detect has never run.")
    make_loops(session, loop="detect", last_at=ago(minutes=5), every_seconds=5)
    session.commit()
    level, words = _said(get)
    assert level == "critical"
    assert words.startswith("The loop detect is silent. Nobody looks for incidents.")
    assert "Nothing is wrong" not in get().text


def test_an_open_incident_is_a_line_with_its_next_step(session: Session, get: Get) -> None:
    _well(session)
    jobs = [make_job(session, "started") for _ in range(2)]
    unserved = make_incident(session, "queue_unserved", subject="queue/reports", affected=2)
    missing = make_incident(
        session, "worker_missing", affected=2, facts={"jobs": [job.id for job in jobs]}
    )
    failing = make_incident(session)
    make_incident(session, subject="loop/behind", because_of=unserved.id)
    session.commit()
    tree = soup(get().text)
    assert tree.select_one("#wrong").text == "3 things are wrong"
    rows = tree.select(".headline li")
    assert [row["data-is"] for row in rows] == ["critical", "warned", "warned"]
    assert [_words(row.strong) for row in rows] == [
        "Nobody serves the queue reports.",
        "Worker web-1:7 is missing.",
        "The loop stage fails.",
    ]
    # A repair that can be done here, or else what a person does; never both.
    assert [row.a.text for row in rows] == [
        "Pause queue",
        "Rescue 2 jobs",
        f"See incident {failing.id}",
    ]
    assert [row.a["href"] for row in rows] == [
        f"/ops/jobs/lifeline/incidents/{each.id}" for each in (unserved, missing, failing)
    ]
    assert "2 jobs are due, and no live worker listens" in _words(rows[0])
    assert "flask opsjobs worker" not in _words(rows[0])


def test_incidents_that_are_alike_are_one_line(session: Session, get: Get) -> None:
    _well(session)
    for number in range(10):
        facts = {"worker": f"web-{number}:1"}
        make_incident(session, "worker_missing", subject=f"worker/{number}", facts=facts)
    session.commit()
    tree = soup(get().text)
    (row,) = tree.select(".headline li")
    assert _words(row.strong) == "Missing workers: 10 incidents."
    assert "Worker web-9:1 is missing; Worker web-8:1 is missing; 8 more." in _words(row)
    assert row.a["href"] == "/ops/jobs/lifeline?class=worker_missing"
    assert tree.select_one("#wrong").text == "1 thing is wrong"


def test_an_incident_of_a_source_that_is_named_is_not_said_again(
    session: Session, get: Get, app: Any, host: Any
) -> None:
    _well(session)
    incident = make_incident(session, "redis_away", subject="redis/default")
    session.execute(update(LoopRun).where(LoopRun.loop == "cron").values(last_at=ago(hours=3)))
    make_incident(session, "loop_silent")
    session.commit()
    answers = host.broker
    host.broker = Broker(RedisConnections(app, "redis://127.0.0.1:1/0"))
    assert _facts(get) == ["Redis does not answer.", "The loop cron is silent."]
    (link, _) = soup(get().text).select(".headline li a")
    assert link.text == f"See incident {incident.id}"
    # What else is wrong with the same Redis and the same loop is said beside it.
    lost = {"place": "default", "why": "It evicted 7 keys"}
    make_incident(session, "redis_lost", subject="redis/default", facts=lost)
    make_incident(session, "loop_failing", subject="loop/cron", facts={"loop": "cron"})
    session.commit()
    assert _facts(get)[:4] == [
        "Redis does not answer.",
        "The loop cron is silent.",
        "The Redis default lost what it held.",
        "The loop cron fails.",
    ]
    assert soup(get().text).select_one(".headline li a").text == f"See incident {incident.id}"
    # While this process reaches Redis, but the loops do not, the incident is the line.
    host.broker = answers
    assert "The Redis default does not answer." in _facts(get)


def test_who_may_not_see_incidents_is_told_that_there_are_some(
    session: Session, get: Get, access: Any
) -> None:
    _well(session)
    make_incident(session)
    make_failure(session)
    session.commit()
    access.held.discard("lifeline.view")
    tree = soup(get().text)
    (row,) = tree.select(".headline li")
    assert _words(row.strong) == "The loop stage fails."
    assert "KeyError" not in _words(row)
    assert row.select("a") == []
    assert tree.select("[aria-labelledby=failures]") == []


def test_a_failure_that_is_new_or_back_is_said_unless_an_incident_says_it(
    session: Session, get: Get
) -> None:
    _well(session)
    make_failure(session)
    make_failure(session, jobs=0, job_failed_at=None, created_at=ago(minutes=5))
    session.commit()
    assert _said(get)[0] == "healthy"
    new = make_failure(session, "render", created_at=ago(minutes=5), jobs=312)
    session.commit()
    assert _said(get) == (
        "failed",
        "render fails with a new error. 312 jobs failed with it. See the failure",
    )
    deploy = make_deploy(session, "2026.11.4")
    back = make_failure(session, regressed_at=ago(minutes=3), regressed_in=deploy.id)
    session.commit()
    (fact,) = _facts(get)
    assert fact == "2 failures are new or regressed: render and send_invoice."
    about = {"task": "render", "failed_jobs": 312, "error": "x", "type": None, "raised_in": None}
    told = make_incident(session, "failure_new", subject=f"failure/{new.id}", facts=about)
    session.commit()
    rows = soup(get().text).select(".headline li")
    assert [unquote(str(row.a["href"])).rpartition("failures/")[2] for row in rows] == [
        str(back.id),
        str(new.id),
    ]
    told.state, told.resolved_at, told.resolved_by = "resolved", ago(), "operator"
    session.commit()
    assert _facts(get) == ["send_invoice fails again, since deploy 2026.11.4."]
    make_incident(session, "failure_regressed", subject=f"failure/{back.id}", state="resolved")
    session.commit()
    assert _said(get)[0] == "healthy"


def test_failures_are_grouped_with_state_and_hours(session: Session, get: Get) -> None:
    make_deploy(session, "2026.11.2", at=ago(days=2))
    deploy = make_deploy(session, "2026.11.3", at=ago(hours=12))
    made = [
        make_failure(
            session, "ignored", state="ignored", ignored_until=ago(days=-3), jobs=900, **_BY
        ),
        make_failure(session, "old", jobs=5),
        make_failure(session, "new", jobs=1, created_at=ago(minutes=5), first_deploy=deploy.id),
        make_failure(session, "resolved", state="resolved", **_BY),
    ]
    session.commit()
    rows = soup(get().text).select("[aria-labelledby=failures] tbody tr")
    assert [row.select_one("th .mute").text for row in rows] == ["new", "old", "ignored"]
    assert [_words(row.select_one(".end")).partition(" until")[0] for row in rows] == [
        "new in 2026.11.3",
        "open",
        "ignored",
    ]
    failed = "[data-label='jobs failed']"
    assert [row.select_one(failed).text for row in rows] == ["1", "5", "900"]
    assert f"failures/{made[2].id}" in unquote(str(rows[0].a["href"]))
    assert (
        soup(get().text)
        .select_one("[aria-labelledby=failures] header a")["href"]
        .endswith("/lifeline/failures")
    )
    drawn = rows[0].select_one("svg.spark")
    assert drawn["aria-label"] == "1 failed attempt in 24 hours, 1 deploy"
    assert drawn.select_one(".bars")["d"].startswith("M92 20")
    (line,) = re.findall(r"M([0-9.]+) 0V20", str(drawn.select_one(".deploy")["d"]))
    assert 44 <= float(line) <= 48  # of 96, on which this hour begins at 92


_BY = {"decided_at": ago(hours=2), "decided_by": "k.lind"}


def test_a_worker_that_is_late_is_part_of_the_machinery(session: Session, get: Get) -> None:
    _well(session)
    make_worker(session, "late", name="web-3:4121")
    session.commit()
    assert _said(get)[0] == "healthy"
    assert "1 of 2 workers alive" in _words(soup(get().text).select_one("#machinery"))


def test_a_paused_queue_matters_when_it_has_due_jobs(session: Session, get: Get) -> None:
    _well(session)
    session.add(Queue(name="reports", created_at=ago(days=1), **paused()))
    session.commit()
    assert _said(get)[0] == "healthy"
    make_job(session, queue="reports")
    session.commit()
    make_worker(session, queues=["reports"])
    session.commit()
    assert _said(get)[1].startswith("Queue reports is paused with 1 due job.")


def test_many_paused_queues_are_a_few_lines_and_the_number_of_the_others(
    session: Session, get: Get
) -> None:
    _well(session)
    names = [f"mail-{number}" for number in range(6)]
    for number, name in enumerate(names):
        held = {**paused(), "paused_at": ago(hours=number + 1)}
        session.add(Queue(name=name, created_at=ago(days=1), **held))
        make_job(session, queue=name)
    make_worker(session, queues=names)
    session.commit()
    lines = soup(get().text).select(".headline li")
    facts = [line.select_one("strong").text for line in lines]
    assert [fact.split(" is ")[0] for fact in facts[:3]] == [f"Queue {name}" for name in names[:3]]
    assert facts[3] == "3 more queues are paused or draining with due jobs."
    assert lines[3].select_one("a")["href"] == "/ops/jobs/queues"
    since = datetime.fromisoformat(str(lines[3].select_one("time")["datetime"]))
    assert abs(since - ago(hours=6)) < timedelta(minutes=1)
    assert len(lines) == 4


def test_a_paused_task_matters_when_it_has_due_jobs(session: Session, get: Get) -> None:
    _well(session)
    session.add(make_pause("send"))
    make_job(session, "scheduled", task="send")
    session.commit()
    assert _said(get)[0] == "healthy"
    for queue in ("mail", "default"):
        make_worker(session, queues=[queue])
        make_job(session, task="send", queue=queue)
    session.commit()
    how, said = _said(get)
    assert (how, said.partition(" See")[0].partition(" since")[0]) == (
        "blocked",
        "Task send is paused until somebody resumes it. anna: “the vendor is away”. 2 due jobs wait.",
    )


def test_a_loop_whose_pass_failed_is_part_of_the_machinery(session: Session, get: Get) -> None:
    _well(session)
    make_loops(session, last_at=ago(), error="OperationalError: no route")
    session.commit()
    assert _said(get)[0] == "healthy"
    assert "13 of 13 loops running, 13 failing" in _words(soup(get().text).select_one("#machinery"))


def test_no_worker_runs(session: Session, get: Get) -> None:
    make_loops(session)
    session.commit()
    assert _said(get) == (
        "warned",
        "No worker is running. Start one: flask opsjobs worker. See the workers",
    )


# --- the six statuses of attention


def _cards(get: Get, path: str = "") -> dict[str, Any]:
    """The cards by title."""
    cells = soup(get(path).text).select(".cell")
    return {cell.h3.find(string=True, recursive=False).strip(): cell for cell in cells}


def _words(node: Any) -> str:
    return " ".join(node.get_text(" ").split())


def test_the_cards_of_a_quiet_site(session: Session, get: Get) -> None:
    _well(session)
    cards = _cards(get)
    assert list(cards) == [
        "Needs review",
        "Blocked",
        "Waiting",
        "Runnable",
        "Bridge-only follow-up",
        "Resolved",
    ]
    assert {_words(card.select_one(".count")) for card in cards.values()} == {"0"}
    assert all(len(card.select(".go")) == 1 for card in cards.values())


def test_the_waiting_card_says_when_its_first_job_is_due(session: Session, get: Get) -> None:
    _well(session)
    first = make_job(session, "retryable", due_at=ago(minutes=-1))
    make_job(session, "scheduled", due_at=ago(minutes=-9))
    session.commit()
    diagnosis = _cards(get)["Waiting"].select_one(".diag")
    assert _words(diagnosis) == (
        "Nothing to do: they wait for a time or another job."
        f" The first is due at {clock(first.due_at)} UTC ."
    )
    assert diagnosis.time["data-as"] == "due"


def test_failed_jobs_are_reviewed_by_failure(session: Session, get: Get) -> None:
    _well(session)
    for ended_by in ("exhausted", "exhausted", "deadline", "discarded"):
        make_job(session, "failed", ended_by=ended_by)
    session.commit()
    card = _cards(get)["Needs review"]
    assert _words(card.select_one(".count")) == "3"
    assert _words(card.select_one(".diag")) == "3 failed jobs wait for a decision."
    assert card["data-is"] == "review"
    worst = make_failure(session, "process_invoice", type="app.GatewayTimeout", jobs=312)
    for jobs in (1, 7, 4):
        make_failure(session, f"render_{jobs}", jobs=jobs)
    session.commit()
    card = _cards(get)["Needs review"]
    assert _words(card.select_one(".count")) == "3"
    assert (
        _words(card.select_one(".diag"))
        == "4 failures ended jobs, none is new. Look first at process_invoice ."
    )
    lines = [_words(line) for line in card.select(".ex li")]
    assert [line.partition(" · ")[0] for line in lines] == [
        "process_invoice GatewayTimeout 312 jobs",
        "render_7 KeyError 7 jobs",
        "render_4 KeyError 4 jobs",
    ]
    assert f"failures/{worst.id}" in unquote(card.select_one(".ex a")["href"])
    assert card.select_one(".go").text == "Review 3 failed jobs"


def test_a_failure_of_which_no_job_is_left_alarms_nobody(session: Session, get: Get) -> None:
    _well(session)
    make_failure(session, "render", jobs=3)
    session.commit()
    card = _cards(get)["Needs review"]
    assert _words(card.select_one(".count")) == "0"
    assert card["data-is"] == "waiting"


def test_jobs_of_missing_workers_are_reviewed(session: Session, get: Get) -> None:
    _well(session)
    gone = make_worker(session, "missing", name="web-3:4121")
    make_job(session, "started", worker_id=gone.id)
    for jobs in (1, 7, 4):
        make_failure(session, f"render_{jobs}", jobs=jobs)
    session.commit()
    card = _cards(get)["Needs review"]
    assert _words(card.select_one(".count")) == "1"
    assert _words(card.select_one(".diag")).startswith(
        "1 job of missing workers waits for a rescue."
        " No failed job is left. 3 failures are not resolved, none is new. Look first at render_7 ."
    )
    lines = [_words(line) for line in card.select(".ex li")]
    assert lines[2].startswith("left by missing workers 1 job · ")
    assert card.select_one(".go")["href"] == "/ops/jobs/workers"


def test_errors_in_the_cards_need_the_permission(session: Session, get: Get, access: Any) -> None:
    make_failure(session, title="GatewayTimeout: card 4242", type="app.GatewayTimeout")
    session.commit()
    assert "card 4242" in get().text
    access.held.discard("payload.view")
    assert "GatewayTimeout" not in get().text


def test_jobs_of_paused_and_unserved_queues_are_blocked(session: Session, get: Get) -> None:
    _well(session)
    make_worker(session, queues=["crm"])
    session.add(Queue(name="crm", created_at=ago(days=1), **paused()))
    for queue in ("crm", "crm", "default"):
        make_job(session, queue=queue)
    session.commit()
    paused_alone = _cards(get)["Blocked"]
    assert (
        _words(paused_alone.select_one(".diag"))
        == "2 jobs wait: crm is paused: anna: the vendor is away."
    )
    for _ in range(3):
        make_job(session, queue="reports")
    session.commit()
    cards = _cards(get)
    assert _words(cards["Blocked"].select_one(".count")) == "5"
    assert (
        _words(cards["Blocked"].select_one(".diag"))
        == "3 jobs wait: reports has no live worker. 1 more holds jobs."
    )
    assert [
        re.sub(r" since.*| \d+ min", "", _words(line)) for line in cards["Blocked"].select(".ex li")
    ] == [
        "reports 3 · no worker, oldest due",
        "crm 2 · paused",
    ]
    # What is blocked is not also called runnable.
    assert _words(cards["Runnable"].select_one(".count")) == "1"


def test_jobs_of_paused_tasks_are_blocked_once(session: Session, get: Get) -> None:
    """Also where a limiter would hold them too. Other jobs of their queues are free."""
    _well(session)
    make_worker(session, queues=["mail"])
    session.add(make_pause("send"))
    for values in ({"queue": "mail"}, {"limiter": "gone", "partition": "", "weight": 1}):
        make_job(session, task="send", **values)
    make_job(session, task="report", queue="mail")
    session.commit()
    cards = _cards(get)
    diagnosis = _words(cards["Blocked"].select_one(".diag"))
    assert diagnosis == "2 jobs wait: the task send is paused: anna: the vendor is away."
    (line,) = cards["Blocked"].select(".ex li")
    assert line.a["href"] == "/ops/jobs/tasks/send"
    assert _words(line).startswith("send 2 · paused")
    assert _words(cards["Runnable"].select_one(".count")) == "1"


def test_what_lies_only_in_rq(session: Session, get: Get, redis_client: Any) -> None:
    from rq import Queue as RQQueue

    _well(session)
    RQQueue("default", connection=redis_client).enqueue("legacy.import_all", "secret-argument")
    card = _cards(get)["Bridge-only follow-up"]
    assert _words(card.select_one(".count")) == "1"
    assert "legacy.import_all queued" in _words(card.select_one(".ex li"))
    assert "secret-argument" not in get().text


def test_a_redis_that_is_away_is_said(session: Session, get: Get, app: Any, host: Any) -> None:
    host.broker = Broker(RedisConnections(app, "redis://127.0.0.1:1/0"))
    card = _cards(get)["Bridge-only follow-up"]
    assert _words(card.select_one(".count")) == "–"
    assert "Redis does not answer" in _words(card.select_one(".diag"))


def test_decisions_of_the_last_day_are_resolved(session: Session, get: Get, access: Any) -> None:
    made = {"outcome": "done", "code": None, "before": None}
    make_event(session, action="job.retry", at=ago(days=2), after={"job/1": {}}, **made)
    make_event(session, action="job.retry", after={f"job/{n}": {} for n in range(5)}, **made)
    make_event(session, action="job.rescue", targets=("job/1", "job/2"), after=None, **made)
    make_event(session, action="queue.pause", after={"queue/a": {}}, **made)
    make_event(
        session, action="job.cancel", outcome="refused", code="illegal", before=None, after=None
    )
    session.commit()
    card = _cards(get)["Resolved"]
    assert _words(card.select_one(".count")) == "7"
    assert (
        _words(card.select_one(".diag")) == "5 tried again, 2 rescued from a worker that is gone."
    )
    assert len(card.select(".ex a")) == 2
    make_incident(session, state="resolved")
    make_incident(session, subject="loop/x", state="resolved", resolved_by="operator")
    session.commit()
    line = _cards(get)["Resolved"].select(".ex li")[-1]
    assert _words(line) == "ended by themselves 1 incident"
    access.held.discard("audit.view")
    access.held.discard("lifeline.view")
    card = _cards(get)["Resolved"]
    assert card.select("a") == []  # no link to what would be refused


def test_what_a_decision_skipped_is_not_resolved(session: Session, get: Get, host: Host) -> None:
    failed, finished, by_another = (
        f"job/{make_job(session, state).id}" for state in ("failed", "finished", "failed")
    )
    session.commit()
    operator = Operator(host)
    operator.run("job.retry", [failed, finished], actor="anna", reason="the vendor answers again")
    handed_on = operator.preview("job.retry", [by_another, finished], actor="anna", via="page")
    preview = find_preview(session, host.secrets, handed_on.id, "ben")
    assert preview is not None
    receipt = operator.execute(preview.id, preview.token, actor="ben", reason="the vendor is back")
    assert [len(receipt.done), len(receipt.skipped)] == [1, 1]
    card = _cards(get)["Resolved"]
    assert _words(card.select_one(".diag")) == "2 tried again."


def test_what_an_operation_has_changed_so_far_is_resolved(session: Session, get: Get) -> None:
    results = ("done", "proven", "failed_same_error", "failed_other_error", "unproven")
    begun = make_operation(session, action="job.cancel", skipped=9, **dict.fromkeys(results, 5))
    waiting = make_operation(session, skipped=0, **dict.fromkeys(results, 0))
    for operation in (begun, waiting):
        subject = f"operation/{operation.id}"
        make_event(
            session,
            action="operation.start",
            subject=subject,
            targets=(subject,),
            before=None,
            after={subject: {"action": operation.action, "targets": 640}},
        )
    session.commit()
    card = _cards(get)["Resolved"]
    assert _words(card.select_one(".count")) == "25"
    assert _words(card.select_one(".diag")) == "25 canceled."


def test_all_decisions_are_counted_and_the_largest_three_shown(session: Session, get: Get) -> None:
    made = {"outcome": "done", "code": None, "before": None}
    for number in (2, 5, 1, 4, 3):
        make_event(
            session, action="job.retry", after={f"job/{n}": {} for n in range(number)}, **made
        )
    make_event(session, action="job.cancel", targets=("job/9",), after=None, **made)
    session.commit()
    card = _cards(get)["Resolved"]
    assert _words(card.select_one(".count")) == "16"
    assert _words(card.select_one(".diag")) == "15 tried again, 1 canceled."
    shown = [_words(link) for link in card.select(".ex a")]
    assert shown == ["5 tried again", "4 tried again", "3 tried again"]


# --- pace


def test_the_pace_of_an_hour_and_of_a_day(session: Session, get: Get) -> None:
    position = session.get_one(RollupPosition, 1)
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    position.counted_from, position.counted_until = (
        minute - timedelta(days=3),
        minute - timedelta(minutes=1),
    )
    for back in range(2, 60):
        session.add(
            Rollup(minute=minute - timedelta(minutes=back), queue="", finished=12, runs=[0, 0, 12])
        )
    session.commit()
    page = soup(get().text)
    charts = page.select("figure.chart")
    assert [chart.h3.text for chart in charts] == [
        *("Throughput", "Failures", "Canceled", "Run time"),
        *("Wait", "Waiting", "Depth", "Running"),
    ]
    assert _words(charts[0].select_one(".now b")) == "12"
    assert charts[0].select("rect.uncounted") == []
    assert len(charts[6].select("rect.uncounted")) == 1  # nobody sampled depths
    for chart in charts:
        assert len(chart.svg.desc.text) > 40
    rows = page.select("[aria-labelledby=pace] tbody tr")
    assert {_words(row.select_one("[data-label=finished]")) for row in rows} == {"12"}
    assert len(rows) == 12
    assert page.select_one(".seg [aria-current]").text == "Last hour"
    day = soup(get("?window=day").text)
    assert day.select_one(".seg [aria-current]").text == "Last day"
    assert "window=day" in day.select_one("#live")["hx-get"]
    assert soup(get("?window=century").text).select_one(".seg [aria-current]").text == "Last hour"


def test_a_difference_is_said_beside_what_is_wrong(session: Session, get: Get) -> None:
    make_loops(session)
    make_integrity_check(session)
    session.commit()
    assert _words(soup(get().text).select_one(".headline header p")) == "No managed job is lost."
    make_integrity_check(session, queue="mail", enqueued=10, stored=8)
    session.commit()
    says = _words(soup(get().text).select_one(".headline header p"))
    assert says == "The integrity check shows a difference: mail."


# --- all that is wrong, and what is held


def test_all_that_is_wrong_is_listed_the_worst_first(
    session: Session, get: Get, host: Host
) -> None:
    _well(session)
    make_incident(session)
    make_failure(session, created_at=ago(minutes=5))
    make_incident(session, "queue_unserved", subject="queue/reports", affected=1)
    make_worker(session, queues=["mail"])
    make_job(session, queue="mail")
    session.commit()
    Operator(host).run("queue.drain", ["queue/mail"], actor="ops-demo", reason="the host is moved")
    assert _facts(get) == [
        "Nobody serves the queue reports.",
        "send_invoice fails with a new error.",
        "The loop stage fails.",
        "Queue mail is draining with 1 due job.",
    ]
    tree = soup(get().text)
    assert tree.select_one("#wrong").text == "4 things are wrong"
    rows = tree.select(".headline li")
    assert all(row.select_one(".since time") and len(row.select("a")) == 1 for row in rows)
    assert "ops-demo: “the host is moved”. " in _words(rows[3])


def test_missed_slots_of_the_last_day_are_in_the_badge(session: Session, get: Get) -> None:
    _well(session)
    make_entry(session, make_job(session, "finished", queue="nightly"))
    session.commit()
    assert "3 slots missed" in _words(soup(get().text).select_one("nav.side a[href$='/cron']"))


def test_the_headline_leaves_out_the_middle_of_a_long_name(session: Session, get: Get) -> None:
    """So that on a phone the cards stand on the first screen, whatever things are called."""
    _well(session)
    name = "reconcile_marketplace_settlement_reports_for_every_seller_account_in_one_country_"
    make_incident(session, "queue_unserved", subject=f"queue/{name}", facts={"queue": name})
    session.commit()
    (row,) = soup(get().text).select(".headline li")
    (short,) = row.select("strong .short-name")
    assert short["title"] == f"{name}."
    assert len(short.text) == 32


def test_jobs_behind_a_cooldown_are_blocked(session: Session, get: Get, host: Host) -> None:
    _well(session)
    make_limiter(
        session, rate=None, per_seconds=None, burst=None, concurrency=100, partition_by=None
    )
    for _ in range(56):
        make_limited(session, "")
    make_job(session)
    session.commit()
    Operator(host).run(
        "limiter.cooldown",
        ["limiter/customer-api"],
        actor="ops-demo",
        reason="the vendor asked us to",
        params={"minutes": 28},
    )
    cards = _cards(get)
    assert _words(cards["Blocked"].select_one(".count")) == "56"
    said = _words(cards["Blocked"].select_one(".diag"))
    assert re.fullmatch(
        r"56 jobs wait for the limiter customer-api , which cools down until \d\d:\d\d:\d\d UTC ?: "
        r"ops-demo: the vendor asked us to\.",
        said,
    ), said
    assert _words(cards["Runnable"].select_one(".count")) == "1"
    (fact,) = _facts(get)
    assert re.fullmatch(r"Limiter customer-api cools down until \d\d:\d\d:\d\d UTC\.", fact), fact


def test_jobs_beyond_a_limit_are_blocked_and_the_others_are_not(session: Session, get: Get) -> None:
    _well(session)
    make_limiter(session, rate=None, per_seconds=None, burst=None, concurrency=3)
    make_limited(session, "7", "started")
    for _ in range(5):
        make_limited(session, "7")
    make_limited(session, "8")
    session.commit()
    cards = _cards(get)
    assert _words(cards["Blocked"].select_one(".count")) == "3"
    assert "customer-api , which is full" in _words(cards["Blocked"].select_one(".diag"))
    assert _words(cards["Runnable"].select_one(".count")) == "4"  # two of 7, one of 8, one started


def test_a_number_behind_a_limit_has_a_plus_when_not_all_due_jobs_were_read(
    session: Session, get: Get
) -> None:
    _well(session)
    make_limiter(session, rate=None, per_seconds=None, burst=None, concurrency=1)
    make_limited(session, "7", "started")
    make_limited(session, "7")
    session.commit()
    assert _words(_cards(get)["Blocked"].select_one(".count")) == "1"
    fill(session, queue="default", available=5_000)
    session.commit()
    cards = _cards(get)
    assert _words(cards["Blocked"].select_one(".count")) == "1+"
    assert _words(cards["Runnable"].select_one(".count")) == "5,000+"  # with the one that runs


def test_no_job_is_called_free_of_a_limit_that_was_not_examined(
    session: Session, get: Get, host: Host
) -> None:
    """The only job with a limiter is younger than all that the page examines."""
    _well(session)
    fill(session, queue="default", available=5_001)
    make_limiter(session, rate=None, per_seconds=None, burst=None, concurrency=1)
    session.commit()
    says = "No due job is held: their queues are open and have workers."
    assert _words(_cards(get)["Blocked"].select_one(".diag")) == says
    make_limited(session, "7", "started")
    make_limited(session, "7")
    session.commit()
    card = _cards(get)["Blocked"]
    assert _words(card.select_one(".count")) == "0+"
    assert "Younger ones were not examined for limiters." in _words(card)
    Operator(host).run(
        "limiter.cooldown",
        ["limiter/customer-api"],
        actor="ops-demo",
        reason="the vendor asked us to",
        params={"minutes": 28},
    )
    row = soup(get().text).select_one(".headline li[data-is='blocked'] .rest")
    assert "None of the oldest due jobs waits for it; younger ones were not examined." in _words(
        row
    )


def test_what_a_draining_queue_dispatched_still_runs(
    session: Session, get: Get, host: Host
) -> None:
    _well(session)
    make_job(session)
    make_job(session, "queued")
    session.commit()
    Operator(host).run(
        "queue.drain", ["queue/default"], actor="ops-demo", reason="the host is moved"
    )
    cards = _cards(get)
    assert _words(cards["Blocked"].select_one(".count")) == "1"
    assert "default is draining" in _words(cards["Blocked"].select_one(".diag"))
    assert "paused" not in _words(cards["Blocked"])
    assert _words(cards["Runnable"].select_one(".count")) == "1"


# --- sources that do not answer


def _moving(session: Session) -> None:
    """A site on which jobs end and one more is due."""
    _well(session)
    position = session.get_one(RollupPosition, 1)
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    position.counted_from = minute - timedelta(days=1)
    position.counted_until = minute - timedelta(minutes=1)
    for back in range(2, 20):
        session.add(
            Rollup(minute=minute - timedelta(minutes=back), queue="", finished=12, runs=[12])
        )
    make_integrity_check(session)
    make_job(session)
    session.commit()


def test_nothing_is_called_moving_while_redis_is_silent(
    session: Session, get: Get, app: Any, host: Host
) -> None:
    _moving(session)
    # A worker of ours would take the job from Postgres.
    session.execute(update(Worker).values(kind="plain"))
    session.commit()
    assert "At the pace of the last ten minutes, " in get().text
    host.broker = Broker(RedisConnections(app, "redis://127.0.0.1:1/0"))
    tree = soup(get().text)
    assert _facts(get)[0] == "Redis does not answer."
    assert "1 due job waits. None is lost" in _words(tree.select_one(".headline li"))
    assert "At the pace of" not in tree.text
    cards = _cards(get)
    assert "1 job waits for Redis" in _words(cards["Blocked"].select_one(".diag"))
    # The moment is of the oldest job, not of Redis: that is in the headline.
    assert _words(cards["Blocked"].select_one(".ex li")).startswith("Redis 1 · oldest due since ")
    assert _words(cards["Runnable"].select_one(".count")) == "0"
    assert tree.select("#sources li") == []  # the headline says it
    assert "Redis answers" not in tree.text
    assert "balanced" not in tree.text


def test_jobs_run_from_postgres_while_redis_is_silent(
    session: Session, get: Get, app: Any, host: Host
) -> None:
    _moving(session)
    host.broker = Broker(RedisConnections(app, "redis://127.0.0.1:1/0"))
    tree = soup(get().text)
    assert _facts(get)[0] == "Redis does not answer."
    said = _words(tree.select_one(".headline li"))
    assert "Jobs run from Postgres, plain RQ jobs wait." in said
    assert "due job" not in said
    assert "At the pace of the last ten minutes, " in tree.text
    cards = _cards(get)
    assert _words(cards["Blocked"].select_one(".count")) == "0"
    assert _words(cards["Runnable"].select_one(".count")) == "1"
    # A queue without a worker of ours waits all the same.
    make_job(session, queue="mail")
    session.commit()
    said = _words(soup(get().text).select_one(".headline li"))
    assert "Jobs run from Postgres where a worker of ours listens, plain RQ jobs wait." in said
    assert "Elsewhere 1 due job waits. None is lost" in said
    assert "1 job waits for Redis" in _words(_cards(get)["Blocked"].select_one(".diag"))


def test_nothing_is_called_moving_or_balanced_while_loops_are_silent(
    session: Session, get: Get
) -> None:
    _moving(session)
    assert "no difference" in get().text
    session.execute(update(LoopRun).values(last_at=ago(hours=3)))
    session.commit()
    text = get().text
    assert "At the pace of" not in text
    assert "balanced" not in text
    assert "is not known while Redis or a loop does not answer" in text
    assert "None of them becomes due" not in text  # no job waits for its time
    make_job(session, "scheduled")
    session.commit()
    assert "None of them becomes due" in get().text


# --- the machinery and the first minutes


def test_the_machinery_is_one_line(session: Session, get: Get) -> None:
    _well(session)
    make_integrity_check(session)
    session.commit()
    machinery = soup(get().text).select_one("#machinery")
    assert _words(machinery) == (
        "Machinery Postgres answers Redis answers 13 of 13 loops running "
        "integrity check: no difference 1 worker alive Lifeline"
    )
    make_loops(session, loop="vacuum", last_at=ago(hours=1), every_seconds=1)
    make_integrity_check(session, queue="mail", enqueued=10, stored=8)
    session.commit()
    says = _words(soup(get().text).select_one("#machinery"))
    assert "13 of 14 loops running" in says
    # Its details, such as what each loop did last, are on Lifeline.
    assert "dispatched 61" not in get().text


def test_the_first_minutes_say_that_counting_began(session: Session, get: Get) -> None:
    make_loops(session, started_at=ago(seconds=40))
    session.commit()
    pace = soup(get().text).select_one("[aria-labelledby=pace]")
    assert "Counting began" in _words(pace)
    assert pace.select("figure") == []
    session.execute(update(LoopRun).values(last_at=ago(hours=3)))
    session.commit()
    assert "Nothing was counted in this time" in get().text


def test_the_incident_of_a_failure_does_not_tell_its_error(session: Session, get: Get) -> None:
    """It is payload: the page of the failure shows it to those who may see it."""
    _well(session)
    failure = make_failure(session, "render")
    about = {
        "task": "render",
        "failed_jobs": 312,
        "error": "card 4242",
        "type": None,
        "raised_in": None,
    }
    subject = f"failure/{failure.id}"
    make_incident(session, "failure_new", subject=subject, facts=about, affected=312)
    session.commit()
    (row,) = soup(get().text).select(".headline li")
    assert row.a.text == "See the failure"
    assert "312 jobs failed with the same error." in _words(row)
    assert "card 4242" not in _words(row)
