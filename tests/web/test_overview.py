"""The first page: the worst in one sentence, and numbers that agree with the rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rq.suspension import resume, suspend
from sqlalchemy.orm import Session

from flask_opsjobs.overview.models import Rollup, RollupHead
from flask_opsjobs.queues.models import Queue
from tests.web.every import soup
from tests.web.rows import ago, make_book, make_event, make_executor, make_job, make_loops

Get = Callable[..., Any]


def _said(get: Get) -> tuple[str, str]:
    """The status and the words of the sentence at the top."""
    say = soup(get().text).select_one(".say")
    assert say is not None
    return str(say["data-is"]), " ".join(say.text.split())


def _well(session: Session) -> None:
    make_loops(session)
    make_executor(session, queues=["default"])
    session.commit()


def test_all_is_well(session: Session, get: Get) -> None:
    _well(session)
    make_job(session, "finished")
    session.commit()
    assert _said(get) == (
        "healthy",
        "Nothing needs a person. Nothing failed in the last hour, every loop is awake, "
        "1 worker has a sign of life.",
    )


def test_workers_that_rq_suspended(session: Session, get: Get, redis_client: Redis) -> None:
    _well(session)
    suspend(redis_client)
    level, words = _said(get)
    assert level == "open"
    assert words.startswith("All workers are suspended by RQ's own command.")
    resume(redis_client)
    assert _said(get)[0] == "healthy"


def test_no_loop_has_run(get: Get) -> None:
    level, words = _said(get)
    assert level == "open"
    assert words.startswith("No loop has ever run.")
    assert "flask opsjobs run" in words


def test_all_loops_are_silent(session: Session, get: Get) -> None:
    make_loops(session, last_at=ago(hours=1), every_seconds=1)
    session.commit()
    assert _said(get)[1].startswith("No loop is awake.")


def test_one_loop_is_silent(session: Session, get: Get) -> None:
    _well(session)
    make_loops(session, last_at=ago(minutes=-1))
    make_loops(session, loop="vacuum", last_at=ago(hours=1), every_seconds=1)
    session.commit()
    assert _said(get)[1].startswith("The loop vacuum is silent.")


def test_a_queue_with_due_jobs_and_nobody_listening(session: Session, get: Get) -> None:
    _well(session)
    make_executor(session, "missing", queues=["reports"])
    for state in ("available", "queued"):
        make_job(session, state, queue="reports")
    make_job(session, "scheduled", queue="elsewhere")
    session.commit()
    level, words = _said(get)
    assert level == "open"
    assert words.startswith("Queue reports has 2 due jobs and no live worker.")
    assert "flask opsjobs worker reports" in words
    assert "other queue" not in words
    assert "See its jobs" in words


def test_failures_of_the_last_hour(session: Session, get: Get) -> None:
    _well(session)
    make_job(session, "failed", ended_at=ago(minutes=50), worker="send_receipt")
    make_job(session, "failed", ended_at=ago(minutes=70))
    session.commit()
    assert _said(get) == (
        "open",
        "1 job failed in the last hour. The last one: send_receipt. See the failed jobs",
    )
    cell = soup(get().text).select_one(".cell")
    assert cell is not None
    assert cell.select_one(".count").text == "2"


@pytest.mark.parametrize(
    ("state", "words"),
    [("missing", "went missing within a day."), ("late", "is late with a sign of life.")],
)
def test_a_worker_that_is_not_well(state: str, words: str, session: Session, get: Get) -> None:
    _well(session)
    make_executor(session, state, name="web-3:4121")
    session.commit()
    assert _said(get)[0] == "warned"
    assert f"Worker web-3:4121 {words}" in _said(get)[1]


def test_a_paused_queue_matters_when_it_has_due_jobs(session: Session, get: Get) -> None:
    _well(session)
    session.add(Queue(name="reports", is_paused=True, created_at=ago(days=1)))
    session.commit()
    assert _said(get)[0] == "healthy"
    make_job(session, queue="reports")
    session.commit()
    assert _said(get)[1].startswith("Queue reports is paused with due jobs.")


def test_a_loop_whose_pass_failed(session: Session, get: Get) -> None:
    make_executor(session)
    make_loops(session, error="OperationalError: no route")
    session.commit()
    assert "failed in the last pass" in _said(get)[1]
    assert "OperationalError: no route" in get().text


def test_no_worker_runs(session: Session, get: Get) -> None:
    make_loops(session)
    session.commit()
    assert _said(get) == ("warned", "No worker is running. Start one: flask opsjobs worker.")


def test_depth_agrees_with_the_rows(session: Session, get: Get) -> None:
    _well(session)
    for state, many in (("available", 3), ("scheduled", 2), ("started", 1)):
        for _ in range(many):
            make_job(session, state, queue="crm")
    make_job(session, "finished", queue="crm")
    make_job(session, "deferred", queue="mail")
    session.commit()
    table = soup(get().text).select_one("[aria-labelledby=queues] table")
    rows = [[cell.text.strip() for cell in row.select("th, td")] for row in table.select("tr")]
    assert rows == [
        ["Queue", "deferred", "scheduled", "available", "queued", "started", "retryable", "Workers", "Oldest due"],
        ["crm", "0", "2", "3", "0", "1", "0", "none", "20 min"],
        ["default", "0", "0", "0", "0", "0", "0", "1", ""],
        ["mail", "1", "0", "0", "0", "0", "0", "0", ""],
        ["All", "1", "2", "3", "0", "1", "0", "1", ""],
    ]  # fmt: skip


def test_a_backlog_is_counted_up_to_a_limit_only(session: Session, get: Get) -> None:
    from tests.test_query_plans import fill

    _well(session)
    fill(session, 10_050, "available", queue="crm")
    fill(session, 50, "available", queue="mail")
    session.commit()
    cells = {
        row.th.text.strip(): row.select_one("[data-label=available]").text
        for row in soup(get().text).select("table tr:has([data-label=available])")
    }
    # What is beyond the limit is not looked at, and the numbers say so.
    assert cells == {"crm": "10,000+", "default": "0+", "mail": "0+", "All": "10,000+"}


def test_workers_show_what_they_have_in_hand(session: Session, get: Get) -> None:
    make_executor(session, holding=["12-1", "13-7", "14-1", "15-1", "nonsense"], queues=["a", "b"])
    session.commit()
    row = soup(get().text).select_one("[aria-labelledby=workers] tbody tr")
    assert row is not None
    assert [a.text for a in row.select("a")] == ["12", "13", "14"]
    assert "and 1 more" in row.text
    assert "a, b" in row.text


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
        "Needs review", "Blocked", "Waiting", "Runnable", "Bridge-only follow-up", "Resolved",
    ]  # fmt: skip
    assert {_words(card.select_one(".count")) for card in cards.values()} == {"0"}
    assert all(len(card.select(".go")) == 1 for card in cards.values())


def test_failures_that_are_alike_stand_together(session: Session, get: Get) -> None:
    for number in range(3):
        make_job(
            session, "failed", worker="process_invoice", error=f"GatewayTimeout: account {number}"
        )
    last = make_job(session, "failed", worker="process_invoice", error="GatewayTimeout: account 9")
    make_job(session, "failed", worker="render", error="MemoryError")
    make_job(session, "failed", worker="render", ended_by="deadline", error=None)
    make_job(session, "failed", worker="render", ended_by="discarded")
    session.commit()
    card = _cards(get)["Needs review"]
    assert _words(card.select_one(".count")) == "6"
    assert (
        _words(card.select_one(".diag"))
        == "4 of them failed alike in process_invoice : GatewayTimeout."
    )
    lines = [_words(line) for line in card.select(".ex li")]
    assert lines[0] == f"{last.id} GatewayTimeout 4 alike · 10 min"
    assert "the deadline passed before it started" in " ".join(lines)
    assert card.select_one(".go").text == "Review 6 failed jobs"


def test_errors_in_the_cards_need_the_permission(session: Session, get: Get, access: Any) -> None:
    make_job(session, "failed", error="GatewayTimeout: card 4242")
    session.commit()
    access.held.discard("payload.view")
    assert "GatewayTimeout" not in get().text


def test_jobs_of_paused_and_unserved_queues_are_blocked(session: Session, get: Get) -> None:
    _well(session)
    make_executor(session, queues=["crm"])
    session.add(Queue(name="crm", is_paused=True, created_at=ago(days=1)))
    for queue in ("crm", "crm", "reports", "default"):
        make_job(session, queue=queue)
    session.commit()
    cards = _cards(get)
    assert _words(cards["Blocked"].select_one(".count")) == "3"
    assert (
        _words(cards["Blocked"].select_one(".diag")) == "crm is paused; reports has no live worker."
    )
    assert [_words(line) for line in cards["Blocked"].select(".ex li")] == [
        "crm 2 · due 20 min",
        "reports 1 · due 20 min",
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
    from flask_opsjobs.engine.broker import Broker
    from flask_opsjobs.engine.connections import RedisConnections

    host.broker = Broker(RedisConnections(app, "redis://127.0.0.1:1/0"))
    card = _cards(get)["Bridge-only follow-up"]
    assert _words(card.select_one(".count")) == "–"
    assert "Redis does not answer" in _words(card.select_one(".diag"))


def test_decisions_of_the_last_day_are_resolved(session: Session, get: Get, access: Any) -> None:
    made = {"outcome": "done", "code": None, "before": None}
    make_event(session, action="job.retry", after={f"job/{n}": {} for n in range(5)}, **made)
    make_event(session, action="job.rescue", targets=("job/1", "job/2"), after=None, **made)
    make_event(session, action="job.retry", at=ago(days=2), after={"job/1": {}}, **made)
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


# --- pace and books


def test_the_pace_of_an_hour_and_of_a_day(session: Session, get: Get) -> None:
    head = session.get_one(RollupHead, 1)
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    head.counted_from, head.counted_until = (
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
    assert charts[0].select("rect.blind") == []
    assert len(charts[3].select("rect.blind")) == 1  # nobody sampled depths
    for chart in charts:
        assert len(chart.svg.desc.text) > 40
    rows = page.select("[aria-labelledby=pace] tbody tr")
    assert [row.select_one("[data-label=finished]").text for row in rows][-1] == "12"
    assert page.select_one(".seg [aria-current]").text == "Last hour"
    day = soup(get("?window=day").text)
    assert day.select_one(".seg [aria-current]").text == "Last day"
    assert "window=day" in day.select_one("#live")["hx-get"]
    assert soup(get("?window=century").text).select_one(".seg [aria-current]").text == "Last hour"


def test_books_that_balance_and_books_that_do_not(session: Session, get: Get) -> None:
    _well(session)
    assert "Nothing has been counted yet" in get().text
    make_book(session)
    session.commit()
    assert "the books balance" in _said(get)[1]
    panel = soup(get().text).select_one("[aria-labelledby=books]")
    assert "balanced" in _words(panel.header)
    assert [cell.text for cell in panel.select("tbody tr > *")] == [
        "default",
        "9",
        "4",
        "1",
        "1",
        "3",
        "0",
    ]
    make_book(session, queue="mail", born=10, kept=8, queued_nowhere=3)
    session.commit()
    level, words = _said(get)
    assert (level, words.startswith("2 jobs of queue mail are unaccounted for.")) == ("open", True)
    panel = soup(get().text).select_one("[aria-labelledby=books]")
    assert "off" in _words(panel.header)
    assert "3 queued and in no structure of Redis" in _words(panel.footer)


def test_what_lifeline_puts_right_by_itself_is_a_warning(session: Session, get: Get) -> None:
    _well(session)
    make_book(session, queued_nowhere=2)
    session.commit()
    assert _said(get)[0] == "warned"
    assert _said(get)[1].startswith("2 jobs are handed to RQ and in no structure of Redis.")
