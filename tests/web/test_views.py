"""Saved views: a person's own, named cleanly, at most fifty, and nobody else's to see or delete."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import SavedView
from flask_opsjobs.jobs.search.saved_views import MOST_VIEWS, BadView, list_views, save_view
from tests.support.waiting import wait_until
from tests.web.conftest import Access
from tests.web.every import soup

Get = Callable[..., Any]
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def post(client: FlaskClient) -> Callable[..., Any]:
    """Sends a form as our own page does: `post("/views", name="x")`."""

    def post(path: str, status: int = 303, **form: str) -> Any:
        response = client.post(f"/ops/jobs{path}", data=form, headers=SAME_ORIGIN)
        assert response.status_code == status, response.text
        return response

    return post


def _views(get: Get, query: str = "") -> dict[str, str]:
    links = soup(get(f"/jobs{query}").text).select(".drop li.row > a")
    return {link.text: str(link["href"]) for link in links}


def test_a_view_is_saved_opened_replaced_and_deleted(get: Get, post: Any) -> None:
    answer = post(
        "/views", name="  Failed \n overnight ", query="state=failed&q=created:<8h tag:eu"
    )
    assert answer.location == "/ops/jobs/jobs?state=failed&tag=eu&created=%3C8h"
    ((name, address),) = _views(get).items()
    assert name == "Failed overnight"
    page = get(address.removeprefix("/ops/jobs")).text
    assert soup(page).select_one("#q")["value"] == "tag:eu created:<8h"
    assert "View: Failed overnight" in [one.text for one in soup(page).select(".drop summary")]
    assert soup(page).select_one(".drop [aria-current]").text == name
    post("/views", name="Failed overnight", query="state=failed")
    assert _views(get) == {"Failed overnight": "/ops/jobs/jobs?state=failed"}
    button = soup(get("/jobs").text).select_one("li form")
    post(str(button["action"]).removeprefix("/ops/jobs"))
    assert _views(get) == {}


def test_the_form_carries_what_is_shown(get: Get) -> None:
    query = {"q": "queue:a args.x:1 state:failed", "limit": "50"}
    hidden = soup(get("/jobs", query_string=query).text).select_one("input[name=query]")
    assert hidden["value"] == "state=failed&queue=a&args.x=1&limit=50"


def test_views_are_each_person_s_own(get: Get, post: Any, access: Access, session: Session) -> None:
    post("/views", name="mine", query="state=failed")
    view_id = session.scalars(select(SavedView.id)).one()
    me, access.actor = access.actor, "somebody else"
    assert _views(get) == {}
    post(f"/views/{view_id}/delete", 404)
    post("/views", name="mine", query="queue=a")
    assert _views(get) == {"mine": "/ops/jobs/jobs?queue=a"}
    access.actor = me
    assert _views(get) == {"mine": "/ops/jobs/jobs?state=failed"}


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"name": ""}, "a name of 1 to 60"),
        ({"name": " \u202e\x00 \n"}, "a name of 1 to 60"),
        ({"name": "x" * 61}, "a name of 1 to 60"),
        ({}, "a name of 1 to 60"),
        ({"name": "x", "query": "state=nonsense"}, "there is no state"),
        ({"name": "x", "query": "colour=red"}, "cannot be searched"),
        ({"name": "x", "query": "q=hello+OR"}, "OR joins"),
        ({"name": "x", "query": "queue=a%00"}, "control character"),
    ],
)
def test_what_is_no_view_is_refused(form: dict[str, str], said: str, post: Any, get: Get) -> None:
    assert said in post("/views", 422, **form).text
    assert _views(get) == {}


@pytest.mark.parametrize("query", ["args.x=1", "error=secret"])
def test_what_may_not_be_searched_is_not_kept(
    query: str, post: Any, get: Get, access: Access
) -> None:
    access.held.discard("payload.view")
    assert "payload.view" in post("/views", 403, name="x", query=query).text
    assert _views(get) == {}


@pytest.mark.parametrize("view_id", ["0", "x", "-1", "9" * 30, "9223372036854775808"])
def test_nonsense_deletes_nothing(view_id: str, post: Any) -> None:
    post(f"/views/{view_id}/delete", 404)


def test_markup_in_a_name_is_text(get: Get, post: Any) -> None:
    post("/views", name="<b>'\"bold", query="state=failed")
    assert list(_views(get)) == ["<b>'\"bold"]
    tree = soup(get("/jobs?state=failed").text)
    assert not tree.select(".drop b")
    assert "bold" in str(tree.select_one("li form button")["aria-label"])


def test_a_write_from_another_site_is_refused(client: FlaskClient, get: Get) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {}):
        answer = client.post("/ops/jobs/views", data={"name": "x"}, headers=headers)
        assert answer.status_code == 403
    assert _views(get) == {}


def _audit_views(get: Get, query: str = "") -> dict[str, str]:
    links = soup(get(f"/audit{query}").text).select(".drop li.row > a")
    return {link.text: str(link["href"]) for link in links}


def test_the_audit_has_views_of_its_own(get: Get, post: Any, access: Access) -> None:
    query = "actor=anna&since=2026-11-24+09:00&incident=incident/7&limit=50"
    answer = post("/audit/views", name="mine", query=query)
    address = "/ops/jobs/audit?actor=anna&since=2026-11-24T09%3A00%3A00&incident=7&limit=50"
    assert answer.location.replace(":", "%3A") == address
    post("/views", name="mine", query="state=failed")
    assert _audit_views(get) == {"mine": address}
    assert _views(get) == {"mine": "/ops/jobs/jobs?state=failed"}
    page = soup(get(address.removeprefix("/ops/jobs")).text)
    assert "View: mine" in [one.text for one in page.select(".drop summary")]
    assert page.select_one("[name=since]")["value"] == "2026-11-24T09:00:00"
    number = str(page.select_one("li form")["action"]).split("/")[-2]
    post(f"/views/{number}/delete", 404)
    me, access.actor = access.actor, "somebody else"
    post(f"/audit/views/{number}/delete", 404)
    access.actor = me
    post(f"/audit/views/{number}/delete")
    assert (_audit_views(get), len(_views(get))) == ({}, 1)


@pytest.mark.parametrize(
    ("form", "status", "said"),
    [
        ({"name": ""}, 422, "a name of 1 to 60"),
        ({"name": "x", "query": "since=soon"}, 422, "is no time"),
        ({"name": "x", "query": "incident=x"}, 422, "is no id"),
    ],
)
def test_what_is_no_view_of_the_audit_is_refused(
    form: dict[str, str], status: int, said: str, post: Any, get: Get
) -> None:
    assert said in post("/audit/views", status, **form).text
    assert _audit_views(get) == {}


def test_two_windows_cannot_both_save_the_fiftieth(host: Host, session: Session) -> None:
    for number in range(MOST_VIEWS - 1):
        save_view(session, "ops-demo", "jobs", f"view {number}", "")
    save_view(session, "other", "jobs", "one", "")
    session.commit()

    def save(name: str) -> bool:
        with Session(host.engine) as mine, mine.begin():
            try:
                save_view(mine, "ops-demo", "jobs", name, "")
            except BadView:
                return False
        return True

    save_view(session, "ops-demo", "jobs", "left", "")  # and does not commit yet
    waits = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with ThreadPoolExecutor() as threads, host.engine.connect() as watcher:
        other = threads.submit(save, "right")
        wait_until(lambda: other.done() or watcher.scalar(waits), what="the other one to wait")
        session.commit()
        assert other.result() is False
    assert len(list_views(session, "ops-demo", "jobs")) == MOST_VIEWS
    save_view(session, "ops-demo", "jobs", "view 0", "state=failed")  # replacing is still allowed
    with pytest.raises(BadView, match="50 views already"):
        save_view(session, "ops-demo", "jobs", "one more", "")
