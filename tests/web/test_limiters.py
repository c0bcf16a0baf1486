"""The limiters' pages: what each allows, what is used, who holds, who waits,
and the actions that are legal now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.host import Host
from flask_opsjobs.limits.models import Bucket, LimitMinute, LimitRejection
from flask_opsjobs.limits.queries import MOST_LIMITERS
from flask_opsjobs.overview.models import RollupPosition
from tests.support.clock import Clock
from tests.support.policies import ShowAll
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import ago, clock, make_limited, make_limiter, make_worker

Get = Callable[..., Any]
Reference = Callable[..., str]
REASON = "the vendor is down, OPS-2291"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
ODD = ["", "a/b", "a//b", "..", "cooldown", "naïve ☂", "<b>&'\"", "a b", "100%", "a?b#c", "{{7*7}}"]


def _row(get: Get, name: str = "customer-api") -> dict[str, str]:
    """The cells of a limiter's row by their label."""
    tree = soup(get("/limiters").text)
    (row,) = [tr for tr in tree.select("tbody tr") if tr.th.a.text == name]
    return {str(td["data-label"]): " ".join(td.text.split()) for td in row.select("td[data-label]")}


def _panel(get: Get, name: str, path: str = "/limiters/customer-api") -> str:
    panel = soup(get(path).text).select_one(f"section[aria-labelledby={name}]")
    return " ".join(panel.get_text(" ").split())


def _buttons(get: Get, path: str) -> list[str]:
    return [button.text.strip() for button in soup(get(path).text).select("#part .actions button")]


def test_a_row_tells_what_is_allowed_and_used(get: Get, session: Session) -> None:
    make_limiter(session)
    for state in ("available", "available", "queued", "started"):
        make_limited(session, state=state)
    session.commit()
    row = _row(get)
    assert row["allows"] == "10 a minute, 5 at once; 3 at the same time; for each account_id"
    assert (row["running"], row["queued"], row["waiting"]) == ("1", "1", "2")
    assert (row["tokens"], row["next start"]) == ("by partition", "by partition")


def test_one_bucket_tells_its_tokens_and_the_next_start(
    get: Get, session: Session, page_clock: Clock
) -> None:
    make_limiter(session, partition_by=None, concurrency=None)
    used = {"limiter": "customer-api", "partition": "", "last_used_at": page_clock.now}
    session.add(Bucket(**used, tokens=0.0, refilled_at=page_clock.now))
    session.commit()
    row = _row(get)
    assert row["tokens"].endswith("of 5")
    # A token comes every 6 s; the page says seconds.
    assert row["next start"] == f"{clock(page_clock.now + timedelta(seconds=6))} UTC"
    said = _panel(get, "bucket")
    assert "too few tokens are left" in said
    assert "one every 6 s" in said


def test_all_places_taken_is_not_over_by_time(
    get: Get, session: Session, reference: Reference
) -> None:
    make_limiter(session, rate=None, per_seconds=None, burst=None, concurrency=1)
    make_limited(session, state="started")
    make_limited(session)
    session.commit()
    said = _panel(get, "bucket", f"/limiters/customer-api?partition={reference('42')}")
    assert "1 of 1 taken" in said
    assert "only after a running job ends, or the limit changes too few places are free" in said


def test_minutes_are_of_the_last_hour_and_unknown_before_they_are_counted(
    get: Get, session: Session
) -> None:
    make_limiter(session, when_full="reject")
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for minutes, number in ((5, 40), (59, 2), (70, 1000)):
        at = now - timedelta(minutes=minutes)
        counted = {"admitted": number, "recalled": 1, "rejected": 3}
        session.add(LimitMinute(limiter="customer-api", minute=at, **counted))
    session.commit()
    assert _row(get)["last hour"] == "not counted yet"
    assert "not counted" in _panel(get, "history")
    _count_until(session, now)
    row = _row(get)
    names = ("started", "recalled", "rejected")
    assert tuple(row[f"{name}, last hour"] for name in names) == ("42", "2", "6")
    over, *under = soup(get("/limiters").text).select(".over, .under th")
    assert (over.text, over["colspan"]) == ("Last hour", str(len(under)))
    assert [th.text.lower() for th in under] == list(names)
    tree = soup(get("/limiters/customer-api").text)
    titles = [h3.text for h3 in tree.select(".chart h3")]
    assert titles == ["Started", "Recalled", "Rejected"]
    assert "from 0 to 40 in all" in tree.select_one("#d-admitted").text


def _cool_down(host: Host, target: str) -> None:
    Operator(host).run(
        "limiter.cooldown", [target], actor="l.brandt", reason=REASON, params={"minutes": 30}
    )


def _count_until(session: Session, now: datetime) -> None:
    position = session.query(RollupPosition).one()
    position.counted_from, position.counted_until = now - timedelta(hours=3), now
    session.commit()


def test_a_cooldown_says_until_when_who_and_why(
    get: Get, session: Session, host: Host, reference: Reference
) -> None:
    make_limiter(session)
    make_limited(session)
    session.commit()
    _cool_down(host, "limiter/customer-api")
    partition = f"/limiters/customer-api?partition={reference('42')}"
    for path in ("/limiters", "/limiters/customer-api", partition):
        say = soup(get(path).text).select_one(".say")
        leads_to = [link["href"] for link in say.select("a")]
        assert leads_to == ["/ops/jobs/limiters/customer-api"] * (path != "/limiters/customer-api")
        said = " ".join(say.text.split())
        assert "customer-api cools down until" in said
        assert f"by l.brandt: “{REASON}”" in said
    assert _buttons(get, "/limiters/customer-api") == ["Clear cooldown…"]
    assert " limiter in cooldown" in get("/limiters").text
    assert REASON in _panel(get, "decided")


def test_a_partition_cools_down_on_its_own_page(
    get: Get, session: Session, host: Host, reference: Reference
) -> None:
    make_limiter(session)
    session.commit()
    _cool_down(host, "limiter/customer-api/42")
    path = f"/limiters/customer-api?partition={reference('42')}"
    assert "it cools down" in _panel(get, "bucket", path)
    assert not soup(get(path).text).select(".say a")
    assert REASON in _panel(get, "cooling")
    assert _buttons(get, "/limiters/customer-api") == []
    assert _buttons(get, path) == ["Clear cooldown…"]
    assert "1 cooling" in get("/limiters").text


def test_hot_partitions_come_first_and_link_to_their_numbers(get: Get, session: Session) -> None:
    make_limiter(session)
    # The hottest comes last by name: those before it do not hide it.
    for partition, number in (("7", 1), ("8", 3), ("9", 2), *((f"1{n}", 1) for n in range(250))):
        for _ in range(number):
            make_limited(session, partition)
    session.commit()
    links = soup(get("/limiters/customer-api").text).select("section[aria-labelledby=hot] tbody a")
    assert [link.text for link in links][:3] == ["8", "9", "10"]
    assert len(links) == 10
    path = links[0]["href"].removeprefix("/ops/jobs")
    assert "3, in the order in which they start" in _panel(get, "waiters", path)


def test_who_holds_and_since_when(get: Get, session: Session) -> None:
    make_limiter(session)
    worker = make_worker(session)
    job = make_limited(session, state="started", worker_id=worker.id)
    session.commit()
    said = _panel(get, "holders")
    assert f"{job.id} send_invoice 42 1 {worker.name} since " in said


def test_a_place_whose_attempt_does_not_run_can_be_released(
    get: Get, session: Session, access: Access
) -> None:
    make_limiter(session)
    make_limited(session, state="started")
    ended = make_limited(session, state="started")
    session.commit()
    assert not soup(get("/limiters/customer-api").text).select("[aria-labelledby=holders] button")
    ended.state, ended.ended_at, ended.ended_by = "finished", ended.created_at, "returned"
    session.commit()
    (button,) = soup(get("/limiters/customer-api").text).select("[aria-labelledby=holders] button")
    assert button["formaction"] == f"/ops/jobs/leases/{ended.id}-{ended.dispatch_no}/release"
    access.held.discard("lease.release")
    (button,) = soup(get("/limiters/customer-api").text).select("[aria-labelledby=holders] button")
    assert button.has_attr("disabled")
    assert "needs lease.release" in button.text


def test_a_partition_that_a_deploy_left_out_is_shown_while_jobs_are_in_it(
    get: Get, session: Session, reference: Reference
) -> None:
    make_limiter(session, partition_by=None)
    make_limited(session)
    running = make_limited(session, "43", "started")
    session.commit()
    tree = soup(get("/limiters/customer-api").text)
    (link,) = tree.select("section[aria-labelledby=hot] tbody a")
    assert link.text == "42"
    assert f"{running.id} send_invoice 43 1" in _panel(get, "holders")
    said = get(link["href"].removeprefix("/ops/jobs")).text
    # The door cools no partition down that is not declared.
    assert "1, in the order in which they start" in said
    assert 'id="cool-title"' not in said
    waits, runs, gone = map(reference, ("42", "43", "44"))
    get(f"/limiters/customer-api?partition={runs}")
    get(f"/limiters/customer-api/simulate?partition={waits}&live=yes")
    said = get(f"/limiters/customer-api?partition={gone}", 422).text
    assert "no job waits or runs in this one" in said
    get(f"/limiters/customer-api/simulate?partition={gone}", 422)


def test_controls_of_a_partition_are_written_out(
    get: Get, session: Session, reference: Reference
) -> None:
    odd = "a\x1b[1m\nb\x9b\u202e"
    make_limiter(session)
    job = make_limited(session, odd)
    make_limited(session, odd, "started")
    session.commit()
    shown = r"a\x1b[1m\nb\x9b\u202e"
    query = f"?partition={reference(odd)}"
    whole = get("/limiters/customer-api").text
    assert whole.count(shown) == 2
    (link,) = soup(whole).select("section[aria-labelledby=hot] tbody a")
    assert link["href"].endswith(query)
    for path in (f"/limiters/customer-api{query}", f"/jobs/{job.id}"):
        said = get(path).text
        assert shown in said
        assert not {"\x1b", "\x9b", "\u202e"} & set(said)


def test_rejections_are_told(get: Get, session: Session) -> None:
    make_limiter(session, when_full="reject")
    refused = {"partition": "42", "task": "charge", "weight": 2, "code": "limit_tokens"}
    session.add(LimitRejection(at=ago(minutes=3), limiter="customer-api", **refused))
    session.commit()
    assert "charge 42 2 too few tokens are left" in _panel(get, "rejections")


def test_a_changed_declaration_is_told_beside_the_old_one(get: Get, session: Session) -> None:
    numbers = {"rate": 5, "per_seconds": 60, "burst": 5, "concurrency": 3}
    was = {**numbers, "partition_by": "account_id", "weight_by": "1", "when_full": "hold"}
    make_limiter(session, previous=was, changed_at=ago(days=1))
    session.commit()
    said = _panel(get, "declared")
    assert "rate 10 5" in said
    assert "burst 5 the same" in said


def test_a_job_links_to_its_limiter(get: Get, session: Session) -> None:
    make_limiter(session)
    job = make_limited(session, "a/b", weight=2)
    session.commit()
    relations = soup(get(f"/jobs/{job.id}").text).select_one("section[aria-labelledby=relations]")
    (link,) = [a for a in relations.select("a") if "limiters" in a["href"]]
    assert link.text == "customer-api a/b"
    assert "weighs 2" in relations.text
    get(link["href"].removeprefix("/ops/jobs"))


@pytest.mark.parametrize("partition", ODD)
def test_any_text_is_a_partition(
    partition: str, get: Get, client: FlaskClient, session: Session, reference: Reference
) -> None:
    make_limiter(session)
    session.commit()
    query = f"?partition={reference(partition)}"
    opens = soup(get("/limiters/customer-api").text).select_one(
        "section[aria-labelledby=open-title] form"
    )
    typed = {"partition": partition}
    opened = client.post(opens["action"], data=typed, headers=SAME_ORIGIN)
    assert (opened.status_code, opened.location) == (303, f"/ops/jobs/limiters/customer-api{query}")
    tree = soup(client.get(opened.location).text)
    get(tree.select_one("#live")["hx-get"].removeprefix("/ops/jobs"))
    form = tree.select_one("section[aria-labelledby=cool-title] form")
    sent = client.post(form["action"], data={"minutes": "5"}, headers=SAME_ORIGIN)
    assert sent.status_code == 303, sent.text
    preview = soup(client.get(sent.location).text)
    fields = {i["name"]: i["value"] for i in preview.select("form[action*=execute] input")}
    done = client.post(
        preview.select_one("form[action*=execute]")["action"],
        data={**fields, "reason": REASON},
        headers=SAME_ORIGIN,
        follow_redirects=True,
    )
    assert done.status_code == 200
    assert _buttons(get, f"/limiters/customer-api{query}") == ["Clear cooldown…"]
    assert (
        session.query(Bucket.partition).where(Bucket.cooldown_until.is_not(None)).scalar()
        == partition
    )


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/limiters/nowhere", 404, "No process has declared a limiter nowhere"),
        ("/live/limiters/nowhere", 404, "No process has declared"),
        ("/limiters/whole?partition=7", 422, "was not made here"),
        ("/limiters/whole?partition=", 422, "was not made here"),
        ("/limiters/whole?partition=%00", 422, "was not made here"),
        ("/limiters/whole?partition=%E2%98%82", 422, "was not made here"),
    ],
)
def test_what_is_not_there_is_said(
    path: str, status: int, said: str, get: Get, session: Session
) -> None:
    make_limiter(session, "whole", partition_by=None)
    session.commit()
    assert said in get(path, status).text


def test_a_limiter_without_partitions_has_none(
    get: Get, session: Session, reference: Reference
) -> None:
    make_limiter(session, "whole", partition_by=None)
    session.commit()
    for path in ("/limiters/whole", "/limiters/whole/simulate", "/live/limiters/whole"):
        assert "has none" in get(f"{path}?partition={reference('7', 'whole')}", 422).text
        # A reference of another limiter's is none of this one's, though its partition be the same.
        assert "not made here" in get(f"{path}?partition={reference('7')}", 422).text


@pytest.mark.parametrize("typed", ["a\0b", "x" * 201])
def test_what_no_partition_is_called_opens_nothing(
    typed: str, client: FlaskClient, session: Session
) -> None:
    make_limiter(session)
    session.commit()
    place = "/ops/jobs/limiters/customer-api/open"
    answer = client.post(place, data={"partition": typed}, headers=SAME_ORIGIN)
    assert answer.status_code == 422
    assert "a text of at most 200 characters" in answer.text


def test_nothing_there_yet_says_what_will_be(get: Get) -> None:
    assert "No limiter has been declared" in soup(get("/limiters").text).select_one(".empty").text


def test_a_list_of_too_many_says_that_it_is_cut(get: Get, session: Session) -> None:
    for number in range(MOST_LIMITERS + 1):
        make_limiter(session, f"api-{number:03}")
    session.commit()
    assert "These are the first 100 by name" in soup(get("/limiters").text).text


def test_the_policy_is_asked_about_the_partition(
    get: Get, access: Access, session: Session, reference: Reference
) -> None:
    make_limiter(session)
    session.commit()
    access.held -= {"limiter.cooldown"}
    path = f"/limiters/customer-api?partition={reference('a/b')}"
    get(path)
    assert ("limiters.view", "limiter/customer-api/a/b") in access.asked
    assert ("limiter.cooldown", "limiter/customer-api/a/b") in access.asked
    said = _panel(get, "cool-title", path)
    assert "needs limiter.cooldown" in said


class Hides(ShowAll):
    """Shows `hunter2` nowhere."""

    def clean_text(self, text: str) -> str:
        return text.replace("hunter2", "[hidden]")


def test_a_partition_that_the_display_policy_hides_stands_on_no_page_and_in_no_address(
    make_app: Callable[..., Flask], session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    make_limiter(session)
    job = make_limited(session, "hunter2")
    make_limited(session, "hunter2", "started")
    session.commit()
    access = Access()
    app = make_app(display=Hides(), access=access)
    caplog.set_level(logging.DEBUG)

    def ask(path: Any, **form: Any) -> Any:
        client = app.test_client()
        answer = client.post(path, data=form, headers=SAME_ORIGIN) if form else client.get(path)
        assert "hunter2" not in f"{path}\n{answer.headers}\n{answer.text}"
        return answer

    ask(f"/ops/jobs/jobs/{job.id}")
    limiter = soup(ask("/ops/jobs/limiters/customer-api").text)
    (link,) = limiter.select("section[aria-labelledby=hot] tbody a")
    assert link.text == "[hidden]"
    page = ask(link["href"])
    assert page.status_code == 200
    tree = soup(page.text)
    for place in (tree.select_one("#live")["hx-get"], tree.select_one("#part .actions a")["href"]):
        assert ask(place).status_code == 200
    cool_down = tree.select_one("section[aria-labelledby=cool-title] form")["action"]
    preview = ask(ask(cool_down, minutes="5", back=str(link["href"])).location)
    assert soup(preview.text).h1.text == "Cool limiter customer-api/[hidden] down"
    run = soup(preview.text).select_one("form[action$='/execute']")
    fields = {str(field["name"]): field["value"] for field in run.select("input")}
    done = ask(run["action"], **fields, reason=REASON)
    assert "Audit 1" in ask(done.location).text
    shown = [
        ask(path).text
        for path in (
            "/ops/jobs/limiters",
            "/ops/jobs/limiters/customer-api",
            str(link["href"]),
            f"/ops/jobs/jobs/{job.id}",
            "/ops/jobs/audit",
            "/ops/jobs/audit/1",
        )
    ]
    assert all("[hidden]" in text for text in shown[1:])
    assert "cools down" in shown[2]
    access.held -= {"limiters.view", "limiter.clear"}
    assert ask(str(link["href"])).status_code == 403
    assert ask(cool_down.replace("/cooldown", "/clear"), back="/").status_code == 403
    assert "was denied limiters.view" in caplog.text
    assert "hunter2" not in caplog.text


def test_what_has_not_changed_is_not_sent_again(client: FlaskClient, session: Session) -> None:
    make_limiter(session)
    session.commit()
    first = client.get("/ops/jobs/live/limiters")
    again = client.get("/ops/jobs/live/limiters", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
