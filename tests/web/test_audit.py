"""The audit page: its list, filters and detail, its files, and what it says of the chain."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.audit import queries
from flask_opsjobs.audit import transitions as audit_transitions
from flask_opsjobs.endings import MovedJob
from flask_opsjobs.lifeline.watch import Swept, make_decision
from tests.support.policies import ShowAll
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import ago, make_event, make_job

Get = Callable[..., Any]
ENDED = MovedJob(7, 1, "available", None, "w", "q", "q", False)
MARKUP = '<script>alert("x")</script>'


def _numbers(page: str) -> list[int]:
    return [int(link.text) for link in soup(page).select("table.audit tbody th a")]


def _link(page: str, rel: str) -> str | None:
    found = soup(page).select_one(f"a[rel={rel}]")
    return None if found is None else str(found["href"])


def _words(element: Any) -> str:
    return " ".join(element.get_text(" ").split())


def _facts(page: str) -> dict[str, str]:
    facts = soup(page).select_one("dl.facts")
    names, values = facts.select("dt"), facts.select("dd")
    return {_words(name): _words(value) for name, value in zip(names, values, strict=True)}


@pytest.fixture
def few(session: Session) -> Session:
    """Six decisions of three people, two of them refused."""
    make_event(session)
    make_event(session, action="queue.resume", reason="vendor is back")
    make_event(
        session,
        actor="l.brandt",
        action="job.delete",
        subject="job/42",
        targets=("job/42",),
        outcome="refused",
        code="unauthorized",
        reason=None,
        before=None,
        after=None,
    )
    make_event(
        session, actor="l.brandt", action="job.retry", subject="2 jobs", targets=("job/42", "job/7")
    )
    make_event(
        session, actor="system", via="system", action="job.rescue", reason="the vendor is no actor"
    )
    make_event(session, outcome="refused", code="drifted", reason="once more, please")
    session.commit()
    return session


def test_the_newest_come_first_refusals_included(get: Get, few: Session) -> None:
    page = get("/audit").text
    assert _numbers(page) == [6, 5, 4, 3, 2, 1]
    rows = [_words(row) for row in soup(page).select("table.audit tbody tr")]
    assert rows[0].startswith("6 refused")
    assert "drifted: once more, please" in rows[0]
    assert rows[3].endswith("job.delete job/42 unauthorized")
    assert "6 of 6, newest first" in soup(page).footer.text
    assert "2 rows, newest first" in _words(soup(get("/audit?q=job/42").text).footer)


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("actor=l.brandt", [4, 3]),
        ("actor=nobody", []),
        ("action=queue.pause", [6, 1]),
        ("outcome=refused", [6, 3]),
        ("outcome=refused&actor=l.brandt", [3]),
        ("q=job/42", [4, 3]),
        ("q=job/42&outcome=done", [4]),
        ("q=job/4", []),
        ("q=queue/mail", [6, 5, 2, 1]),
        ("q=VENDOR", [5, 4, 2, 1]),
        ("q=job", [4, 3]),
        ("q=vendor&actor=ops-demo", [2, 1]),
        ("q=%25", []),
        ("since=1h", [6, 5, 4, 3, 2, 1]),
        ("until=1h", []),
        ("since=1h&actor=l.brandt&outcome=done", [4]),
        ("request_id=b20e-5d17&action=queue.pause", [6, 1]),
        ("request_id=b20e", []),
        ("operation=3", []),
        ("incident=9", []),
    ],
)
def test_filters_choose(query: str, numbers: list[int], get: Get, few: Session) -> None:
    page = get(f"/audit?{query}").text
    assert _numbers(page) == numbers
    assert ("No decision matches" in page) == (not numbers)


@pytest.mark.parametrize("target", ["job/4", "queue/mail", "cron/sync", "limiter/api"])
def test_a_target_is_exactly_that_one(target: str, get: Get, session: Session) -> None:
    for subject in (target, f"{target}2"):
        make_event(session, subject=subject, targets=(subject,), reason=f"not {target} but")
    session.commit()
    assert _numbers(get(f"/audit?q={target}").text) == [1]


def test_the_form_shows_the_filter_and_offers_what_there_is(get: Get, few: Session) -> None:
    tree = soup(get("/audit?actor=l.brandt&action=job.retry&outcome=done&q=42").text)
    assert tree.select_one("[name=actor]")["value"] == "l.brandt"
    assert tree.select_one("[name=q]")["value"] == "42"
    assert [option.text for option in tree.select("form.filter option[selected]")] == [
        "job.retry",
        "done",
    ]
    actors = [option["value"] for option in tree.select("#actors option")]
    assert actors == ["l.brandt", "ops-demo", "system"]
    actions = [option.text for option in tree.select("[name=action] option")]
    assert actions == [
        "any",
        "job.delete",
        "job.rescue",
        "job.retry",
        "queue.pause",
        "queue.resume",
    ]


@pytest.mark.slow
def test_pages_follow_one_another_both_ways_and_keep_their_place(
    client: FlaskClient, session: Session
) -> None:
    for number in range(60):
        make_event(session, actor="a" if number % 2 else "b")
    session.commit()
    for query, expected in (("", range(60, 0, -1)), ("?actor=a", range(60, 0, -2))):
        seen, pages, path = [], [], f"/ops/jobs/audit{query}"
        while path:
            page = client.get(path).text
            pages.append(page)
            seen += _numbers(page)
            path = _link(page, "next") or ""
        assert seen == list(expected)
        back = client.get(_link(pages[-1], "prev")).text
        assert _numbers(back) == _numbers(pages[-2])
        assert _link(client.get(_link(pages[1], "prev")).text, "prev") is None
    older = _link(client.get("/ops/jobs/audit").text, "next")
    make_event(session)
    session.commit()
    assert _numbers(client.get(older).text)[0] == 35


def test_a_search_looks_at_a_window_says_so_and_goes_on_from_there(
    client: FlaskClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "WINDOW", 30)
    for number in range(100):
        make_event(
            session, reason=f"needle {number}" if number in (3, 5, 45, 98) else "hay, much of it"
        )
    session.commit()
    seen, path = [], "/ops/jobs/audit?q=needle"
    while path:
        page = client.get(path).text
        seen.append(_numbers(page))
        last, path = page, _link(page, "next") or ""
        assert ("30 decisions searched" in page) == bool(path)
    assert seen == [[99], [46], [], [6, 4]]
    back, path = [], _link(last, "prev") or ""
    while path:
        page = client.get(path).text
        back.append(_numbers(page))
        path = _link(page, "prev") or ""
    assert back[-1] == [99]
    assert [46] in back


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/audit?limit=1000000000", 422, "limit: a page has 25, 50, 100 decisions"),
        ("/audit?limit=-1", 422, "limit: a page has"),
        ("/audit?outcome=maybe", 422, "outcome: there is no outcome 'maybe'"),
        ("/audit?q=a%00b", 422, "q: holds a control character"),
        ("/audit?actor=" + "x" * 201, 422, "actor: has at most 200 characters"),
        ("/audit?before=zzz", 422, "before: this mark"),
        ("/audit?after=AAAAAAAAAAE", 422, "after: this mark"),
        ("/audit?before=%00%FF", 422, "before: this mark"),
        ("/audit?row=x", 404, "no row x"),
        ("/audit?row=%D9%A1", 404, "no row"),
        ("/audit?row=7", 404, "no row 7"),
        ("/audit?row=" + "9" * 900, 404, "no row 9"),
        ("/audit/7", 404, "no row 7"),
        ("/audit/0", 404, "no row 0"),
        ("/audit/9223372036854775808", 404, "no row"),
        ("/audit/" + "9" * 4_000, 404, "no row 999"),
        ("/audit/x", 404, "nothing at this address"),
        ("/audit/-1", 404, "nothing at this address"),
        ("/audit.csv?before=x", 422, "before"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_nonsense_is_answered_with_what_is_wrong(
    path: str, status: int, said: str, get: Get, few: Session
) -> None:
    assert said in soup(get(path, status).text).main.text


def test_a_cursor_of_another_filter_list_direction_or_secret_is_refused(
    client: FlaskClient, make_app: Callable[..., Flask], session: Session
) -> None:
    for _ in range(30):
        make_event(session)
    session.commit()
    older = _link(client.get("/ops/jobs/audit").text, "next")
    assert older is not None
    assert client.get(older).status_code == 200
    assert client.get(older + "&limit=50").status_code == 200
    assert client.get(older + "&actor=ops-demo").status_code == 422
    assert client.get(older.replace("before", "after")).status_code == 422
    assert client.get(older.replace("/audit?", "/jobs?")).status_code == 422
    assert make_app(SECRET_KEY="rotated").test_client().get(older).status_code == 422


def test_the_detail_says_who_when_why_on_what_and_what_changed(get: Get, few: Session) -> None:
    for path in ("/audit/1", "/audit?row=1"):
        page = get(path).text
        facts = _facts(page)
        assert facts["Who"] == "ops-demo, from the page"
        assert facts["Target"] == "queue/mail"
        assert "26." in facts["Previewed"]
        assert facts["Permission"] == "queue.pause"
        assert facts["Request"] == "b20e-5d17"
        assert facts["Chain"].startswith("begins here → ")
        tree = soup(page)
        assert tree.select_one("dl.facts a")["href"] == "/ops/jobs/queues/mail"
        assert tree.blockquote.text == "the vendor times out"
        assert [_words(row) for row in tree.select("table.diff tr")] == [
            "What Before After",
            "queue/mail",
            "is_paused false true",
        ]
        assert "1 value is the same before and after" in tree.main.text
    assert soup(get("/audit?row=1").text).select_one("tr.on th").text == "1"
    assert "Refused as" in _facts(get("/audit/3").text)
    assert "Refused as" not in facts


def test_the_detail_of_many_targets_links_each(get: Get, session: Session) -> None:
    make_event(
        session,
        subject="5 things",
        targets=("job/1", "job/2", "cron/sync", "limiter/api", "worker/web-1:7"),
        before={"job/1": {"state": "failed"}, "job/2": {"state": "failed", "attempt": 5}},
        after={"job/1": {"state": "available"}, "job/2": None},
    )
    session.commit()
    tree = soup(get("/audit/1").text)
    links = [str(link["href"]) for link in tree.select("dl.facts a")]
    assert links == [
        "/ops/jobs/jobs/1",
        "/ops/jobs/jobs/2",
        "/ops/jobs/cron/sync",
        "/ops/jobs/limiters/api",
        "/ops/jobs/workers",
        "/ops/jobs/audit?request_id=b20e-5d17",
    ]
    rows = [_words(row) for row in tree.select("table.diff tr")]
    assert rows == [
        "What Before After",
        "job/1",
        "state failed available",
        "job/2",
        "state failed none",
        "attempt 5 none",
    ]


def test_a_row_stays_beside_the_list_in_the_part_that_refreshes(get: Get, few: Session) -> None:
    tree = soup(get("/audit?row=3&actor=l.brandt").text)
    live = str(tree.select_one("#live")["hx-get"])
    part = soup(get(live.removeprefix("/ops/jobs")).text)
    assert part.select_one("#row h2").text == "job.delete"
    assert _numbers(str(part)) == [4, 3]


def test_nothing_new_costs_nothing(get: Get, few: Session) -> None:
    first = get("/audit/live")
    etag = {"If-None-Match": first.headers["ETag"]}
    get("/audit/live", 304, headers=etag)
    make_event(few)
    few.commit()
    get("/audit/live", 200, headers=etag)


# --- the chain


def _tamper(session: Session, statement: str) -> None:
    session.execute(text("SET LOCAL session_replication_role = replica"))
    session.execute(text(statement))
    session.commit()


def test_the_page_says_which_rows_it_verified_and_no_more(get: Get, session: Session) -> None:
    for _ in range(130):
        make_event(session)
    session.commit()
    lead = soup(get("/audit").text).select_one("p.lead")
    assert "rows 31 to 130 verified" in _words(lead)
    assert "the whole chain: flask opsjobs audit verify" in _words(lead)
    assert "intact" not in lead.text
    _tamper(session, "UPDATE opsjobs.audit_events SET reason = 'x' WHERE sequence = 5")
    assert "rows 31 to 130 verified" in get("/audit").text
    _tamper(session, "UPDATE opsjobs.audit_events SET reason = 'x' WHERE sequence = 99")
    assert "the column reason of row 99" in _words(soup(get("/audit").text).select_one("p.lead"))


def test_an_empty_audit_a_lost_head_and_a_lost_key_are_said(
    get: Get, session: Session, make_app: Callable[..., Flask]
) -> None:
    assert "Nobody has decided anything yet" in get("/audit").text
    make_event(session)
    session.commit()
    rotated = make_app(SECRET_KEY="rotated").test_client()
    assert "signed with a key that this app does not have" in rotated.get("/ops/jobs/audit").text
    _tamper(session, "DELETE FROM opsjobs.audit_head")
    assert "audit_head has lost its row" in get("/audit").text
    assert _numbers(get("/audit").text) == [1]


def test_rows_outside_the_chain_are_shown_nowhere_and_that_they_are_there_is_said(
    get: Get, session: Session
) -> None:
    job = make_job(session, "failed", queue="mail", lane="mail")
    target = f"job/{job.id}"
    for _ in range(2):
        make_event(session, action="job.retry", subject=target, targets=(target,))
    make_event(session)
    session.commit()
    _tamper(
        session,
        "ALTER TABLE opsjobs.audit_events DROP CONSTRAINT audit_events_sequence_check;"
        " INSERT INTO opsjobs.audit_events SELECT (jsonb_populate_record(e, jsonb_build_object('sequence',"
        " n, 'actor', 'mallory', 'action', 'job.delete', 'at', now()))).* FROM opsjobs.audit_events e,"
        " unnest('{-1,0,4,5}'::int[]) AS n WHERE e.sequence IN (1, 3) AND (e.sequence = 1) = (n < 5)",
    )
    said = "4 rows of the audit are outside the chain, which has rows 1 to 3: the first is row -1"
    page = get("/audit").text
    assert _numbers(page) == [3, 2, 1]
    assert said in _words(soup(page).select_one("p.lead"))
    assert _numbers(get("/audit?action=job.retry").text) == [2, 1]
    assert _numbers(get(f"/audit?q={target}").text) == [2, 1]
    assert _numbers(get("/audit?actor=mallory").text) == []
    for path in (f"/jobs/{job.id}", "/queues/mail"):
        page = get(path).text
        assert said in page
        assert "mallory" not in page
        assert "job.delete</a>" not in page
    for sequence in (0, 4, 5):
        get(f"/audit/{sequence}", 404)
    assert "row 2 verified" in get("/audit/2").text
    assert "mallory" not in get("").text
    assert "mallory" not in get("/audit").text
    exported = get("/audit.ndjson").text.splitlines()
    assert [json.loads(line).get("sequence") for line in exported] == [3, 2, 1, None]
    assert said in exported[-1]


def test_a_decision_that_was_changed_is_called_so_on_its_page(get: Get, few: Session) -> None:
    assert "row 2 verified" in get("/audit/2").text
    _tamper(few, "UPDATE opsjobs.audit_events SET reason = 'another' WHERE sequence = 2")
    assert "the column reason of row 2 differs from" in get("/audit/2").text


def test_rescues_that_wait_to_be_recorded_are_said(get: Get, few: Session) -> None:
    connection: Any = few.connection().connection.driver_connection
    few.execute(text("UPDATE opsjobs.audit_head SET sequence = 3"))
    audit_transitions.append_or_keep(
        connection, (b"only for tests",), make_decision([Swept(8, None, "gone", [ENDED])], ago())
    )
    few.commit()
    assert "1 rescue waits to be recorded" in get("/audit").text


# --- what is hidden stays hidden


class _Policy(ShowAll):
    """Hides the word `sesame` and the key `pin`."""

    def is_hidden_key(self, key: str) -> bool:
        return key == "pin"

    def clean_text(self, text: str) -> str:
        return text.replace("sesame", "[hidden]")


class _Raises(ShowAll):
    def is_hidden_key(self, key: str) -> bool:
        raise RuntimeError("no")

    def clean_text(self, text: str) -> str:
        raise RuntimeError("no")


@pytest.fixture
def secret(session: Session) -> None:
    """A decision that holds a secret wherever text can be."""
    word = "open sesame"
    make_event(
        session,
        actor=word,
        subject=word,
        targets=(word, "queue/sesame"),
        reason=word,
        request_id=word,
        before={word: {word: word, "pin": 47114711}, "list": [{"pin": 47114711, "x": word}]},
        after={"pin": 47124712},
    )
    session.commit()


PLACES = ("/audit", "/audit?row=1", "/audit/1", "/audit/live?row=1", "/audit.csv", "/audit.ndjson")


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.usefixtures("secret")
def test_what_the_policy_hides_is_nowhere(path: str, make_app: Callable[..., Flask]) -> None:
    for policy, mark in ((_Policy(), "[hidden]"), (_Raises(), "[hidden: display policy failed]")):
        page = make_app(display=policy).test_client().get(f"/ops/jobs{path}").text
        # A table's plain places are not asked for: the address of a queue is its name.
        page = page.replace("/queues/sesame", "")
        assert mark in page
        assert "sesame" not in page
        assert "47114711" not in page
        assert "47124712" not in page


@pytest.mark.usefixtures("secret")
def test_what_is_hidden_cannot_be_searched(make_app: Callable[..., Flask]) -> None:
    client = make_app(display=_Policy()).test_client()
    assert client.get("/ops/jobs/audit?q=sesame").status_code == 422
    assert client.get("/ops/jobs/audit?actor=open+sesame").status_code == 422
    for part in ("sesam", "esame"):
        assert _numbers(client.get(f"/ops/jobs/audit?q={part}").text) == []
    assert _numbers(client.get("/ops/jobs/audit?q=open").text) == [1]


@pytest.mark.parametrize("path", PLACES[:4])
def test_markup_in_every_field_is_text(path: str, get: Get, session: Session) -> None:
    make_event(
        session,
        actor=MARKUP,
        action=MARKUP,
        subject=MARKUP,
        targets=(MARKUP, f"job/{MARKUP}"),
        outcome="refused",
        code=MARKUP,
        permission=MARKUP,
        reason=MARKUP,
        request_id=MARKUP,
        before={MARKUP: {MARKUP: MARKUP}},
        after={MARKUP: [MARKUP]},
    )
    session.commit()
    page = get(path).text
    assert "<script>alert" not in page
    assert "alert(" in soup(page).text


@pytest.mark.parametrize("path", PLACES[:4])
def test_what_turns_a_text_around_is_written_out(path: str, get: Get, session: Session) -> None:
    text = "paid \u202e by \u2067 anna \u061c\u200f"
    make_event(
        session,
        actor=text,
        action=text,
        subject=text,
        targets=(text, f"job/{text}"),
        outcome="refused",
        code=text,
        permission=text,
        reason=text,
        request_id=text,
        before={text: {text: text}},
        after={text: [text]},
    )
    session.commit()
    page = get(path).text
    assert not set("\u202e\u2067\u061c\u200f") & set(page)
    assert "paid \\u202e by \\u2067 anna \\u061c\\u200f" in page


# --- files


def test_the_csv_holds_the_filter_and_computes_nothing(get: Get, session: Session) -> None:
    make_event(session, reason="=HYPERLINK(1)", actor="+1", request_id="@x", subject="\t=1")
    make_event(session, actor="another")
    session.commit()
    response = get("/audit.csv?actor=%2B1")
    assert response.headers["Content-Disposition"].startswith(
        'attachment; filename="opsjobs-audit-'
    )
    head, row, end = csv.reader(io.StringIO(response.text))
    found = dict(zip(head, row, strict=True))
    assert (found["reason"], found["actor"], found["request_id"]) == (
        "'=HYPERLINK(1)",
        "'+1",
        "'@x",
    )
    assert found["subject"] == "'\t'=1"  # each cell, wherever a program splits it
    assert json.loads(found["after"])["queue/mail"]["is_paused"] is True
    assert end[0].startswith("# complete: 1 rows")


def test_the_ndjson_is_whole_over_many_batches_and_has_the_chain(
    get: Get, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flask_opsjobs.web.audit import view as audit

    monkeypatch.setattr(audit, "_BATCH", 7)
    for _ in range(20):
        make_event(session, at=ago(minutes=3), before=None)
    session.commit()
    *rows, end = [json.loads(line) for line in get("/audit.ndjson").text.splitlines()]
    assert [row["sequence"] for row in rows] == list(range(20, 0, -1))
    assert [row["previous_hash"] for row in rows[:-1]] == [row["hash"] for row in rows[1:]]
    assert rows[0]["before"] is None
    assert end["opsjobs_export"]["rows"] == 20


@pytest.mark.parametrize("path", PLACES)
def test_it_needs_audit_view(path: str, get: Get, few: Session, access: Access) -> None:
    access.held.remove("audit.view")
    assert "audit.view" in get(path, 403).text
    if path == "/audit":
        assert "Audit" not in soup(get("/jobs").text).select_one("nav.side").text


# --- what the door writes


def test_what_an_operator_did_and_was_refused_is_found_here(
    get: Get, app: Flask, opsjobs: OpsJobs, session: Session
) -> None:
    job = make_job(session, "failed", ended_by="exhausted")
    session.commit()
    with app.app_context():
        opsjobs.operator.run(
            "job.retry", [f"job/{job.id}"], actor="ops-demo", reason="the vendor is back"
        )
        opsjobs.operator.run(
            "job.discard", ["job/987654321"], actor="ops-demo", reason="nobody needs it"
        )
    refused, done = soup(get("/audit").text).select("table.audit tbody tr")
    assert _words(refused).startswith("2 refused")
    assert "unknown_target: nobody needs it" in _words(refused)
    assert f"job.retry job/{job.id} the vendor is back" in _words(done)
    tree = soup(get("/audit/1").text)
    assert "state failed available" in [_words(row) for row in tree.select("table.diff tr")]
    assert _numbers(get(f"/audit?q=job/{job.id}").text) == [1]
    assert "rows 1 to 2 verified" in get("/audit").text
