"""Why many jobs wait: on its own page, and as a part that the pages of jobs and of a queue fetch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.host import Host
from tests.web.every import soup
from tests.web.rows import ago, make_job

Get = Callable[..., Any]
WHY: dict[str, Any] = {"actor": "ops-demo", "reason": "the vendor <b>is away</b>"}
LONG = "q" * 80


@pytest.fixture
def waiting(session: Session, host: Host) -> dict[str, int]:
    """Jobs of a paused queue, one that is due later, and one that has ended."""
    rows = {
        "paused": make_job(session, "available", queue="mail", due_at=ago(minutes=5)),
        "too": make_job(session, "available", queue="mail", due_at=ago(minutes=4)),
        "later": make_job(session, "scheduled", queue=LONG, due_at=ago(minutes=-60)),
        "ended": make_job(session, "finished", queue="mail"),
    }
    session.commit()
    Operator(host).pause("mail", **WHY)
    return {name: job.id for name, job in rows.items()}


def _rows(text: str) -> list[list[str]]:
    return [
        [" ".join(cell.get_text(" ").split()) for cell in row.select("th, td")]
        for row in soup(text).select("table.waits tbody tr")
    ]


def test_the_page_groups_jobs_and_leads_to_them(get: Get, waiting: dict[str, int]) -> None:
    text = get("/jobs/why").text
    (mail, later) = _rows(text)
    assert mail[0] == "queue mail is paused ops-demo: “the vendor <b>is away</b>”"
    assert (mail[1], mail[3], mail[4]) == ("2", "resume the queue", f"job {waiting['paused']}")
    assert mail[2].startswith("since ")
    assert later[:2] == ["they are due later", "1"]
    assert "3 jobs wait." in soup(text).text
    for link, ids in zip(
        soup(text).select("table.waits td.n a"), (("paused", "too"), ("later",)), strict=True
    ):
        listed = get(str(link["href"]).removeprefix("/ops/jobs")).text
        found = [int(each.text) for each in soup(listed).select("table.jobs tbody th a")]
        assert sorted(found) == sorted(waiting[name] for name in ids)


def test_the_reasons_of_most_jobs_are_shown_and_the_others_counted(
    get: Get, session: Session
) -> None:
    for number in range(53):
        make_job(session, "available", queue=f"shard-{number:02}")
    make_job(session, "available", queue="shard-52")
    session.commit()
    text = get("/jobs/why").text
    rows = _rows(text)
    assert len(rows) == 50
    assert rows[0][:2] == ["no live worker listens to queue shard-52", "2"]
    said = " ".join(soup(text).select_one("#waiting-jobs footer").text.split())
    assert said == "3 more reasons, of 3 jobs. A narrower search shows them."


def test_a_page_contains_its_fragment_and_a_poll_costs_little(
    get: Get, client: FlaskClient, waiting: dict[str, int]
) -> None:
    text = get("/jobs/why?q=queue:mail").text
    live = soup(text).select_one("#live")
    assert parse_qs(urlsplit(str(live["hx-get"])).query) == {"queue": ["mail"]}
    assert [row[1] for row in _rows(get(str(live["hx-get"]).removeprefix("/ops/jobs")).text)] == [
        "2"
    ]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/jobs", {}),
        ("/jobs?state=available", {"state": ["available"]}),
        ("/jobs?q=queue:mail&sort=due&limit=50", {"queue": ["mail"]}),
        ("/queues/mail", {"queue": ["mail"]}),
    ],
)
def test_other_pages_fetch_it_and_have_a_link_without_a_script(
    path: str, query: dict[str, Any], get: Get, waiting: dict[str, int]
) -> None:
    (place,) = soup(get(path).text).select("#why-waiting")
    (link,) = place.select("a")
    fetches = link if path.startswith("/jobs") else place
    for address in (str(fetches["hx-get"]), str(link["href"])):
        assert parse_qs(urlsplit(address).query) == query
        # The script takes this out of the answer.
        (section,) = soup(get(address.removeprefix("/ops/jobs")).text).select("#waiting-jobs")
        assert "queue mail is paused" in section.text


def test_a_list_in_which_no_job_waits_does_not_ask(get: Get, waiting: dict[str, int]) -> None:
    assert not soup(get("/jobs?state=finished").text).select("#why-waiting")
    text = get("/jobs/why?state=finished").text
    assert not soup(text).select("#waiting-jobs")
    assert "No job waits." in soup(text).text


def test_a_search_that_cannot_be_read_is_answered_as_on_the_list(get: Get) -> None:
    get("/jobs/why?q=nobody:7", 422)
    get("/jobs/why/live?q=created:x", 422)
