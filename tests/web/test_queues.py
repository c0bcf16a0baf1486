"""The queues' pages: depth, pace, who listens, what was decided, and the actions that are legal now."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import actions_of
from flask_opsjobs.host import Host
from flask_opsjobs.queues.models import Queue
from flask_opsjobs.queues.queries import Rate, find_rates
from tests.web.conftest import Access
from tests.web.every import draft_form, soup
from tests.web.rows import ago, clock, make_job, make_worker

Get = Callable[..., Any]
REASON = "the vendor is down, OPS-2291"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
ODD_NAMES = [
    "a/b",
    "a//b",
    "live",
    "a/live",
    "a/pause",
    "naïve ☂",
    "<b>&'\"",
    "a b",
    "100%",
    "a?b#c",
    "{{7*7}}",
]


def _row(get: Get, name: str = "default") -> dict[str, str]:
    """The cells of a queue's row by their label."""
    tree = soup(get("/queues").text)
    (row,) = [tr for tr in tree.select("tbody tr") if tr.th.a.text == name]
    return {str(td["data-label"]): td.text.strip() for td in row.select("td[data-label]")}


def _buttons(tree: Any) -> list[str]:
    return [button.text.strip() for button in tree.select("#part .actions button")]


@pytest.mark.slow
def test_each_of_hundreds_of_queues_is_found(get: Get, session: Session) -> None:
    """A list of pages, in the order of the whole; a part of a name finds; the last queue has its page."""
    for number in range(250):
        make_job(session, "available", queue=f"customer-{number:03}")
    session.commit()
    seen: list[str] = []
    url: str | None = "/queues"
    while url:
        tree = soup(get(url).text)
        seen += [tr.th.a.text for tr in tree.select("tbody tr")]
        more = tree.select_one('a[rel="next"]')
        url = more["href"].removeprefix("/ops/jobs") if more else None
    assert seen == [f"customer-{number:03}" for number in range(250)]
    assert "201 to 250 of 250" in tree.text
    assert tree.select_one('a[rel="first"]')["href"] == "/ops/jobs/queues"
    found = soup(get("/queues?find=R-24").text)
    assert [tr.th.a.text for tr in found.select("tbody tr")] == seen[240:]
    assert "find=R-24" in found.select_one("#live")["hx-get"]
    assert found.select_one("thead a.sort")["href"].startswith("/ops/jobs/queues?find=R-24")
    assert get("/queues/customer-249").status_code == 200
    none = get("/queues?find=nobody").text
    assert "No queue matches." in none
    assert "1 to 0" not in none
    # A page of a list that has become shorter.
    behind = soup(get("/queues?sort=name&after=300").text).select_one("#part .empty")
    assert "The list has only 250 queues now" in " ".join(behind.text.split())
    assert behind.a["href"] == "/ops/jobs/queues?sort=name&after=200"
    for query in ("after=x", "after=-1", f"find={'x' * 201}", "find=%00"):
        get(f"/queues?{query}", 422)


def test_each_of_hundreds_of_paused_queues_says_so(get: Get, session: Session) -> None:
    names = [f"customer-{number:03}" for number in range(210)]
    then = ago(minutes=60)
    decided = {"is_paused": True, "paused_at": then, "paused_by": "ops", "paused_reason": REASON}
    session.add_all(Queue(name=name, created_at=then, **decided) for name in names)
    job = make_job(session, "available", queue=names[-1])
    session.commit()
    tree = soup(get("/queues").text)
    assert len(tree.select(".say")) == 10
    assert "200 more queues start no jobs: see the list." in " ".join(tree.text.split())
    found = soup(get("/queues?find=customer-20").text)
    assert found.select(".say") == []
    assert found.select_one("p.mute a")["href"] == "/ops/jobs/queues"
    assert "210 queues start no jobs: see all queues." in " ".join(found.text.split())
    assert len(found.select("tbody tr .chip")) >= 10
    assert REASON in get(f"/queues/{names[-1]}").text
    assert "Its queue is paused" in " ".join(soup(get(f"/jobs/{job.id}").text).text.split())


def test_a_row_tells_depth_and_who_listens(get: Get, session: Session) -> None:
    for state in ("scheduled", "retryable", "deferred"):
        make_job(session, state)
    oldest, *_ = (make_job(session, state) for state in ("available", "available", "queued"))
    make_worker(session, queues=["default", "mail"])
    make_worker(session, "late", queues=["default"])
    make_worker(session, "missing", queues=["default"])
    session.commit()
    row = _row(get)
    assert (row["not due"], row["due"], row["queued"], row["started"]) == ("3", "2", "1", "0")
    assert row["workers"] == "1"  # whose heartbeat is late listens no more
    assert row["oldest due"] == f"since {clock(oldest.due_at)} UTC"
    assert row["prefetch"] == "auto"
    assert _row(get, "mail")["workers"] == "1"


def test_the_pace_is_of_the_last_hour_and_unknown_before_minutes_are_counted(
    get: Get, session: Session
) -> None:
    make_job(session)
    session.commit()
    assert _row(get)["last hour"] == "not counted yet"
    assert "flask opsjobs run" in get("/queues").text
    # Written directly: the loop that counts minutes waits for each to be over.
    now = datetime.now(UTC)
    session.execute(
        text("UPDATE opsjobs.rollup_position SET counted_from = :begun, counted_until = :now"),
        {"begun": now - timedelta(hours=2), "now": now},
    )
    for minutes, enqueued in ((5, 40), (59, 2), (61, 1000)):
        at = {"minute": now - timedelta(minutes=minutes), "enqueued": enqueued}
        session.execute(
            text(
                "INSERT INTO opsjobs.enqueue_counts (minute, queue, enqueued)"
                " VALUES (:minute, 'default', :enqueued)"
            ),
            at,
        )
        session.execute(
            text(
                "INSERT INTO opsjobs.rollups (minute, queue, finished, failed, canceled)"
                " VALUES (:minute, 'default', :enqueued, 1, 0)"
            ),
            at,
        )
    session.commit()
    row = _row(get)
    names = ("enqueued", "ended", "failed")
    assert tuple(row[f"{name}, last hour"] for name in names) == ("42", "44", "2")
    over, *under = soup(get("/queues").text).select(".over, .under th")
    assert (over.text, over["colspan"]) == ("Last hour", str(len(under)))
    assert [th.text.lower() for th in under] == list(names)
    found = find_rates(session, now)
    assert found.counted_until == now
    assert found.by_queue == {"default": Rate(42, 44, 2)}


def test_due_jobs_without_a_worker_are_said_first(get: Get, session: Session) -> None:
    make_job(session, "available", queue="reports")
    session.commit()
    say = soup(get("/queues").text).select_one(".say")
    assert "reports has due jobs, and no live worker listens" in " ".join(say.text.split())
    assert "flask opsjobs worker reports" in say.text
    assert _row(get, "reports")["workers"] == "none"


def test_all_is_well(get: Get, session: Session) -> None:
    make_job(session, "available")
    make_worker(session)
    session.commit()
    assert "Every queue is open" in soup(get("/queues").text).select_one(".say").text


def test_a_queue_where_only_plain_jobs_wait_may_have_a_worker_that_nobody_knows(
    get: Get, session: Session
) -> None:
    make_job(session, "queued", origin="rq", queue="legacy")
    session.commit()
    says = " ".join(soup(get("/queues").text).select_one(".say").text.split())
    assert says == (
        "Every queue is open. No known worker listens to the queue legacy, where plain RQ jobs wait."
    )


def test_nothing_there_yet_says_what_will_be(get: Get) -> None:
    assert (
        "A queue appears here after its first job"
        in soup(get("/queues").text).select_one(".empty").text
    )


@pytest.mark.parametrize("action", ["pause", "drain"])
def test_who_stopped_a_queue_since_when_and_why(
    action: str, get: Get, session: Session, host: Host
) -> None:
    make_job(session, "available")
    session.commit()
    Operator(host).run(f"queue.{action}", ["queue/default"], actor="l.brandt", reason=REASON)
    state = {"pause": "paused", "drain": "draining"}[action]
    for path in ("/queues", "/queues/default"):
        tree = soup(get(path).text)
        say = " ".join(tree.select_one(".say").text.split())
        assert f"default is {state} since" in say
        leads_to = [link["href"] for link in tree.select(".say a")]
        assert leads_to == ["/ops/jobs/queues/default"] * (path == "/queues")
        assert f"by l.brandt: “{REASON}”. 1 due, the first " in say
        titles = [
            f"{action.title}…"
            for action in actions_of("queue", state)
            if not (action.is_repair and path == "/queues")
        ]
        titles = [title for title in titles if title != "Set prefetch…"]
        assert _buttons(tree) == titles + ["Clear…"] * (path != "/queues")
    decided = soup(get("/queues/default").text).select_one("[aria-labelledby=decided] tbody tr")
    assert [cell.text.strip() for cell in decided.find_all(["td", "th"])][1:5] == [
        "l.brandt",
        f"queue.{action}",
        "done",
        REASON,
    ]


def test_decisions_are_for_whom_may_see_the_audit(
    get: Get, session: Session, host: Host, access: Access
) -> None:
    make_job(session)
    session.commit()
    Operator(host).run("queue.pause", ["queue/default"], actor="l.brandt", reason=REASON)
    access.held -= {"audit.view"}
    assert not soup(get("/queues/default").text).select("[aria-labelledby=decided]")


def test_a_denied_action_is_disabled_and_names_its_permission(
    get: Get, session: Session, access: Access
) -> None:
    make_job(session)
    session.commit()
    access.held -= {"queue.pause", "queue.set_prefetch"}
    tree = soup(get("/queues/default").text)
    pause, drain, resync, _clear = tree.select("#part .actions button")
    assert pause.has_attr("disabled")
    assert not pause.has_attr("formaction")
    assert "needs queue.pause" in pause.text
    assert not drain.has_attr("disabled")
    assert resync["formaction"] == "/ops/jobs/queues/default/resync"
    prefetch = tree.select_one("[aria-labelledby=prefetch-title]")
    assert "needs queue.set_prefetch" in prefetch.text
    assert prefetch.input.has_attr("disabled")


def test_a_queue_in_full_counts_every_state(get: Get, session: Session) -> None:
    make_job(session, "scheduled")
    make_job(session, "started")
    session.commit()
    rows = soup(get("/queues/default").text).select("[aria-labelledby=depth] tbody tr")
    counted = {row.th.text.strip(): row.td.text.strip() for row in rows}
    assert counted == {
        "deferred": "0",
        "scheduled": "1",
        "available": "0",
        "queued": "0",
        "started": "1",
        "retryable": "0",
    }


def test_a_queue_with_a_decision_alone_has_a_page(get: Get, session: Session) -> None:
    session.add(Queue(name="quiet", prefetch=7, created_at=ago(days=1)))
    session.commit()
    assert _row(get, "quiet")["prefetch"] == "7"
    assert soup(get("/queues/quiet").text).find(id="prefetch")["value"] == "7"


def test_a_queue_that_nobody_names_is_not_found(get: Get) -> None:
    words = soup(get("/queues/nowhere", 404).text).main.text
    assert "names a queue nowhere" in words
    get("/live/queues/nowhere", 404)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_of_any_shape_has_its_page_and_its_actions(
    name: str, client: FlaskClient, session: Session
) -> None:
    # Plain RQ takes any text as a queue's name, and a worker may listen to it.
    make_job(session, "available", queue=name, lane=name)
    session.commit()
    (link,) = soup(client.get("/ops/jobs/queues").text).select("tbody th a")
    assert str(link["href"]).startswith("/ops/jobs/queues/")
    page = client.get(str(link["href"]))
    assert page.status_code == 200
    tree = soup(page.text)
    assert tree.h1.text == name
    assert client.get(str(tree.find(id="live")["hx-get"])).status_code == 200
    button = tree.select_one("button[formaction$='/pause']")
    made = client.post(str(button["formaction"]), headers=SAME_ORIGIN)
    assert made.status_code == 303
    shown = soup(client.get(made.location).text)
    assert shown.h1.text == f"Pause queue {name}"


def test_a_name_that_is_nonsense_is_no_error(client: FlaskClient) -> None:
    for name in ("x" * 3_000, "\x01", "..%2f..", quote("\udcff", errors="surrogatepass")):
        assert client.get(f"/ops/jobs/queues/{name}").status_code in (404, 414)
        answer = client.post(f"/ops/jobs/queues/{name}/pause", headers=SAME_ORIGIN)
        assert answer.status_code in (303, 404, 414, 422)


@pytest.mark.parametrize(("typed", "after"), [("40", "40"), (" 7 ", "7")])
def test_a_prefetch_is_set(
    typed: str, after: str, client: FlaskClient, get: Get, session: Session
) -> None:
    make_job(session)
    session.commit()
    made = client.post(
        "/ops/jobs/queues/default/set_prefetch", data={"prefetch": typed}, headers=SAME_ORIGIN
    )
    tree = soup(client.get(made.location).text)
    assert tree.h1.text == "Set the prefetch of queue default"
    form = {str(i["name"]): str(i["value"]) for i in tree.select("#dialog-page input")}
    url = str(tree.select_one("#dialog-page form")["action"])
    client.post(url, data=form | {"reason": REASON}, headers=SAME_ORIGIN)
    assert _row(get)["prefetch"] == after


@pytest.mark.parametrize("typed", ["0", "-1", "1.5", "many", "1e3", "9" * 30, "٣", "0x10"])
def test_a_prefetch_that_is_none_is_named(
    typed: str, client: FlaskClient, session: Session
) -> None:
    make_job(session)
    session.commit()
    made = client.post(
        "/ops/jobs/queues/default/set_prefetch", data={"prefetch": typed}, headers=SAME_ORIGIN
    )
    assert made.status_code == 422
    assert "prefetch" in soup(made.text).find(id="dialog-page").text


def test_reasons_and_names_pass_the_display_policy(
    make_app: Callable[..., Flask], session: Session, host: Host
) -> None:
    class Hides:
        def is_hidden_key(self, key: str) -> bool:
            return True

        def clean_text(self, text: str) -> str:
            return text.replace("OPS-2291", "[hidden]").replace("l.brandt", "[hidden]")

    make_job(session)
    session.commit()
    Operator(host).run("queue.pause", ["queue/default"], actor="l.brandt", reason=REASON)
    client = make_app(display=Hides()).test_client()
    for path in ("/queues", "/queues/default"):
        page = client.get(f"/ops/jobs{path}").text
        assert "OPS-2291" not in page
        assert "l.brandt" not in page


@pytest.mark.parametrize("name", ["default", "two words of <b>", 'the "fast" one*'])
def test_a_queue_is_cleared_through_the_draft_of_an_operation(
    get: Get, client: FlaskClient, session: Session, access: Access, name: str
) -> None:
    for state in ("available", "scheduled", "deferred", "started", "failed"):
        make_job(session, state, queue=name)
    make_job(session, "available", queue="another")
    session.commit()
    path = f"/queues/{quote(name)}"
    fields = draft_form(soup(get(path).text), "Clear…")
    draft = client.post("/ops/jobs/operations/draft", data=fields, headers=SAME_ORIGIN)
    assert draft.status_code == 303
    page = soup(client.get(draft.headers["Location"]).text)
    assert "Cancel 3 jobs" in " ".join(page.select_one("h1").text.split())
    all_jobs = soup(get(path).text).select_one("[aria-labelledby='depth'] header a")
    assert len(soup(client.get(all_jobs["href"]).text).select("tr[data-row]")) == 5
    for permission in ("job.cancel", "operation.start"):
        access.held -= {permission}
        clear = soup(get(path).text).select_one("header .actions button[disabled]")
        assert f"Clear needs {permission}" in " ".join(clear.text.split())
        assert (
            client.post("/ops/jobs/operations/draft", data=fields, headers=SAME_ORIGIN).status_code
            == 403
        )
