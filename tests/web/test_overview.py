"""The first page: the worst in one sentence, and numbers that agree with the rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rq.suspension import resume, suspend
from sqlalchemy import update
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
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
    make_entry,
    make_event,
    make_integrity_check,
    make_job,
    make_limited,
    make_limiter,
    make_loops,
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
        "Nothing needs your attention. No failed job is left from the last hour, every loop is running, "
        "1 worker sends heartbeats.",
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


def test_a_queue_with_due_jobs_and_nobody_listening(session: Session, get: Get) -> None:
    _well(session)
    make_worker(session, "missing", queues=["reports"])
    for state in ("available", "queued"):
        make_job(session, state, queue="reports")
    make_job(session, "scheduled", queue="elsewhere")
    session.commit()
    level, words = _said(get)
    assert level == "critical"
    assert words.startswith("Queue reports has 2 due jobs and no live worker.")
    assert "flask opsjobs worker reports" in words
    assert "other queue" not in words
    assert "See its jobs" in words


def test_failures_of_the_last_hour(session: Session, get: Get) -> None:
    _well(session)
    make_job(session, "failed", ended_at=ago(minutes=50), task="send_receipt")
    make_job(session, "failed", ended_at=ago(minutes=70))
    session.commit()
    assert _said(get) == (
        "failed",
        "1 job failed in the last hour. The last one: send_receipt. See the failed jobs",
    )
    cell = soup(get().text).select_one(".cell")
    assert cell is not None
    assert cell.select_one(".count").text == "2"


@pytest.mark.parametrize(
    ("state", "words"),
    [("missing", "went missing within a day."), ("late", "is late with its heartbeat.")],
)
def test_a_worker_that_is_not_well(state: str, words: str, session: Session, get: Get) -> None:
    _well(session)
    make_worker(session, state, name="web-3:4121")
    session.commit()
    assert _said(get)[0] == state
    assert f"Worker web-3:4121 {words}" in _said(get)[1]


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


def test_a_loop_whose_pass_failed(session: Session, get: Get) -> None:
    make_worker(session)
    make_loops(session, error="OperationalError: no route")
    session.commit()
    assert "failed in the last pass" in _said(get)[1]
    assert "OperationalError: no route" in get().text


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
        "Nothing to do: scheduled, waiting for retry, or waiting for another job."
        f" The first is due at {first.due_at:%H:%M:%S} UTC ."
    )
    assert diagnosis.time["data-as"] == "due"


def test_failures_with_the_same_error_are_one_line(session: Session, get: Get) -> None:
    for number in range(3):
        make_job(
            session, "failed", task="process_invoice", error=f"GatewayTimeout: account {number}"
        )
    last = make_job(session, "failed", task="process_invoice", error="GatewayTimeout: account 9")
    make_job(session, "failed", task="render", error="MemoryError")
    make_job(session, "failed", task="render", ended_by="deadline", error=None)
    make_job(session, "failed", task="render", ended_by="discarded")
    session.commit()
    card = _cards(get)["Needs review"]
    assert _words(card.select_one(".count")) == "6"
    assert (
        _words(card.select_one(".diag"))
        == "4 of them failed with the same error in process_invoice : GatewayTimeout."
    )
    lines = [_words(line) for line in card.select(".ex li")]
    assert lines[0].startswith(f"{last.id} GatewayTimeout 4 with the same error · since ")
    assert "the deadline passed before it started" in " ".join(lines)
    assert card.select_one(".go").text == "Review 6 failed jobs"


def test_errors_in_the_cards_need_the_permission(session: Session, get: Get, access: Any) -> None:
    make_job(session, "failed", error="GatewayTimeout: card 4242")
    session.commit()
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
        == "3 jobs wait: reports has no live worker. 1 more holds jobs too."
    )
    assert [
        re.sub(r" since.*| \d+ min", "", _words(line)) for line in cards["Blocked"].select(".ex li")
    ] == [
        "reports 3 · no worker, oldest due",
        "crm 2 · paused",
    ]
    # What is blocked is not also called runnable.
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
    access.held.discard("audit.view")
    card = _cards(get)["Resolved"]
    assert card.select("a") == []  # no link to what would be refused


def test_the_last_pass_of_each_loop_says_what_it_did(session: Session, get: Get) -> None:
    make_loops(session)
    session.commit()
    rows = soup(get().text).select("[aria-labelledby=loops] tbody tr")
    assert rows
    assert all("dispatched 61" in _words(row) for row in rows)


# --- pace and the integrity check


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
    assert [chart.h3.text for chart in charts] == ["Throughput", "Failures", "Run time", "Depth"]
    assert _words(charts[0].select_one(".now b")) == "12"
    assert charts[0].select("rect.uncounted") == []
    assert len(charts[3].select("rect.uncounted")) == 1  # nobody sampled depths
    for chart in charts:
        assert len(chart.svg.desc.text) > 40
    rows = page.select("[aria-labelledby=pace] tbody tr")
    assert [row.select_one("[data-label=finished]").text for row in rows][-1] == "12"
    assert page.select_one(".seg [aria-current]").text == "Last hour"
    day = soup(get("?window=day").text)
    assert day.select_one(".seg [aria-current]").text == "Last day"
    assert "window=day" in day.select_one("#live")["hx-get"]
    assert soup(get("?window=century").text).select_one(".seg [aria-current]").text == "Last hour"


def test_an_integrity_check_without_and_with_a_difference(session: Session, get: Get) -> None:
    _well(session)
    assert "Nothing has been counted yet" in get().text
    make_integrity_check(session)
    session.commit()
    assert "the integrity check finds no difference" in _said(get)[1]
    panel = soup(get().text).select_one("[aria-labelledby=integrity]")
    assert "no difference" in _words(panel.header)
    assert [cell.text for cell in panel.select("tbody tr > *")] == [
        "default",
        "9",
        "4",
        "1",
        "1",
        "3",
        "0",
    ]
    make_integrity_check(session, queue="mail", enqueued=10, stored=8, queued_nowhere=3)
    session.commit()
    level, words = _said(get)
    assert (level, words.startswith("Queue mail lacks 2 enqueued jobs.")) == (
        "open",
        True,
    )
    panel = soup(get().text).select_one("[aria-labelledby=integrity]")
    assert _words(panel.header).endswith("− stored difference")
    assert "3 queued, but not in Redis" in _words(panel.footer)


def test_what_lifeline_puts_right_by_itself_is_a_warning(session: Session, get: Get) -> None:
    _well(session)
    make_integrity_check(session, queued_nowhere=2)
    session.commit()
    assert _said(get)[0] == "warned"
    assert _said(get)[1].startswith("2 jobs are queued, but not in Redis.")


# --- all that is wrong, and what is held


def test_all_that_is_wrong_is_listed_the_worst_first(
    session: Session, get: Get, host: Host
) -> None:
    _well(session)
    for number in range(7):
        make_worker(session, "missing", name=f"web-{number}:1", ended_at=ago(minutes=30 - number))
    make_job(session, "failed", ended_at=ago(minutes=12))
    make_job(session, queue="reports")
    make_worker(session, queues=["mail"])
    make_job(session, queue="mail")
    session.commit()
    Operator(host).run("queue.drain", ["queue/mail"], actor="ops-demo", reason="the host is moved")
    assert _facts(get) == [
        "Queue reports has 1 due job and no live worker.",
        "1 job failed in the last hour.",
        "7 workers went missing within a day: web-6:1, web-5:1 and 5 more.",
        "Queue mail is draining with 1 due job.",
    ]
    tree = soup(get().text)
    assert tree.select_one("#wrong").text == "4 things are wrong"
    rows = tree.select(".headline li")
    assert all(row.select_one(".since time") and len(row.select("a")) == 1 for row in rows)
    assert "ops-demo: “the host is moved”. " in _words(rows[3])
    workers = _words(soup(get("/workers").text).select_one("#part .say"))
    assert workers.startswith("7 workers went missing in the last day.")


def test_missed_slots_of_the_last_day_are_said(session: Session, get: Get) -> None:
    """The badge beside Cron counts the same slots."""
    _well(session)
    make_entry(session, make_job(session, "finished", queue="nightly"))
    session.commit()
    tree = soup(get().text)
    (row,) = tree.select(".headline li")
    assert _words(row.strong) == "Cron entry nightly missed 3 slots in the last day."
    assert row.a["href"].endswith("/cron/nightly")
    assert "3 slots missed" in _words(tree.select_one("nav.side a[href$='/cron']"))


def test_the_headline_leaves_out_the_middle_of_a_long_name(session: Session, get: Get) -> None:
    """So that on a phone the cards stand on the first screen, whatever things are called."""
    _well(session)
    name = "reconcile_marketplace_settlement_reports_for_every_seller_account_in_one_country_"
    make_job(session, queue=name)
    session.commit()
    (row,) = soup(get().text).select(".headline li")
    (short,) = row.select("strong .short-name")
    assert short["title"] == name
    assert len(short.text) == 32
    assert f"flask opsjobs worker {name}" in row.select_one(".rest").text, "a command is whole"


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
    assert "customer-api , which allows no more now" in _words(cards["Blocked"].select_one(".diag"))
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


def test_healthy_machinery_is_one_line(session: Session, get: Get) -> None:
    _well(session)
    make_integrity_check(session)
    session.commit()
    machinery = soup(get().text).select_one("#machinery")
    assert not machinery.has_attr("open")
    assert _words(machinery.summary) == (
        "Machinery Postgres answers Redis answers 10 of 10 loops running "
        "integrity check: no difference 1 worker alive"
    )
    make_loops(session, loop="vacuum", last_at=ago(hours=1), every_seconds=1)
    session.commit()
    assert soup(get().text).select_one("#machinery").has_attr("open")


def test_the_first_minutes_say_that_counting_began(session: Session, get: Get) -> None:
    make_loops(session, started_at=ago(seconds=40))
    session.commit()
    pace = soup(get().text).select_one("[aria-labelledby=pace]")
    assert "Counting began" in _words(pace)
    assert pace.select("figure") == []
    session.execute(update(LoopRun).values(last_at=ago(hours=3)))
    session.commit()
    assert "Nothing was counted in this time" in get().text
