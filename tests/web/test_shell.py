"""What surrounds every page: badges, who one is, what one may, help, and what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs._folders import folder
from flask_opsjobs.actions.registry import ACTIONS
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.web.app import shell
from flask_opsjobs.web.app.access import PERMISSIONS
from flask_opsjobs.web.app.shell import NAVIGATION
from flask_opsjobs.web.app.views import KEYS
from tests.support import sources
from tests.support.policies import AllowAll
from tests.web.conftest import Access, Drawn
from tests.web.every import soup
from tests.web.rows import ago, make_incident, make_job, make_loops

Get = Callable[..., Any]
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(autouse=True)
def _fresh_badges() -> None:
    shell._cache.clear()


def _badge(get: Get, endpoint: str, path: str = "/help") -> str:
    key = next(entry.key for entry in NAVIGATION if entry.endpoint == endpoint)
    found = soup(get(path).text).select_one(f"nav.side a[data-key={key}] b")
    return "" if found is None else " ".join(found.text.split())


def test_a_badge_says_what_needs_somebody(get: Get, session: Session) -> None:
    make_job(session, "failed")
    make_job(session, "available", queue="reports")
    session.commit()
    assert _badge(get, "jobs") == "1 needs review"
    assert _badge(get, "queues") == "1 queue without a worker"
    assert _badge(get, "workers") == ""


def _tab(answer: Any) -> tuple[str, str]:
    """The words before the title, and the icon, of a page or of what a poll sends beside its fragment."""
    tree = soup(answer.text)
    icon = tree.select_one("link#icon")
    if tree.title is not None:
        before = tree.title.text.removesuffix(str(tree.html["data-title"])).removesuffix(" · ")
        assert before == icon["data-says"]
    assert icon["href"] == icon["data-icon"]
    return str(icon["data-says"]), str(icon["href"]).rpartition("/")[2]


@pytest.mark.parametrize(
    ("incidents", "says", "icon"),
    [
        ([], "", "icon.svg"),
        (["notice"], "", "icon.svg"),
        (["warning", "notice"], "● 1 incident", "icon-warned.svg"),
        (["warning", "critical", "critical"], "● 2 critical", "icon-critical.svg"),
    ],
)
def test_the_tab_says_where_it_is_and_the_worst_of_what_is_wrong(
    get: Get, access: Access, session: Session, incidents: list[str], says: str, icon: str
) -> None:
    make_loops(session)
    for number, severity in enumerate(incidents):
        make_incident(session, severity=severity, subject=f"loop/{number}")
    session.commit()
    page = get("/jobs?state=failed")
    assert soup(page.text).title.text.endswith("Jobs · host (development)")
    assert _tab(page) == (says, icon)
    assert _tab(get("/jobs/live")) == (says, icon)
    assert _tab(get("/help")) == (says, icon)
    assert _tab(get("/nothing/here", 404)) == (says, icon)
    access.held.remove("lifeline.view")
    assert _tab(get("/jobs")) == _tab(get("/jobs/live")) == ("", "icon.svg")
    access.actor = None
    assert _tab(get("/jobs", 403)) == ("", "icon.svg")


def test_the_tab_says_that_sources_are_away_before_it_says_what_they_told(
    get: Get, session: Session
) -> None:
    make_incident(session, severity="critical")
    session.commit()  # and no loop has ever run
    assert _tab(get("/jobs")) == ("● 1 source away", "icon-away.svg")
    assert _tab(get("/live")) == ("● 1 source away", "icon-away.svg")


def test_badges_are_kept_for_a_second(get: Get, session: Session) -> None:
    """No longer, so that they agree with the numbers of the page beside them, which are read anew."""
    make_loops(session)
    session.commit()
    assert _badge(get, "jobs") == ""
    make_job(session, "failed")
    session.commit()
    ((engine, (_, kept)),) = shell._cache.items()
    shell._cache[engine] = ago(minutes=-1), kept
    assert _badge(get, "jobs") == ""
    shell._cache[engine] = ago(seconds=1), kept
    assert _badge(get, "jobs") == "1 needs review"


def test_a_page_does_without_badges_that_cannot_be_had(
    get: Get, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    session.execute(text("DROP SCHEMA opsjobs CASCADE"))
    session.commit()
    assert _badge(get, "jobs") == ""
    assert "what surrounds a page could not be read" in caplog.text


def test_who_may_change_nothing_is_told_so_and_nobody_else(get: Get, access: Access) -> None:
    assert not soup(get("/help").text).select(".who .tag")
    access.held = set(PERMISSIONS) - set(ACTIONS)
    assert soup(get("/help").text).select_one(".who .tag").text == "read-only"
    access.held |= {"queue.resume"}
    assert not soup(get("/help").text).select(".who .tag")


def test_help_lists_keys_places_permissions_and_versions(get: Get, access: Access) -> None:
    access.held = {"jobs.view", "job.retry"}
    tree = soup(get("/help").text)
    words = " ".join(tree.main.text.split())
    assert all(what in words for _, what in KEYS)
    assert [link.text for link in tree.select("main dl a")] == ["Jobs"]
    assert "job.retry" in words
    assert "job.cancel: no" in words
    assert "flask-opsjobs 0." in words
    assert tree.find(id="help")["href"] == "/ops/jobs/help"


def test_every_key_of_the_help_is_one_of_the_script() -> None:
    script = (folder("static") / "opsjobs.js").read_text()
    for keys, _ in KEYS:
        for key in keys.split():
            name = {"Esc": "Escape"}.get(key, key)
            # Enter opens the link that has the focus, without a script.
            assert key == "Enter" or f"{name}: (" in script or f'"{name}": (' in script, key


def test_an_action_stands_in_the_one_form_that_holds_the_token(drawn: Drawn) -> None:
    seen = 0
    for _, path, _, page in drawn:
        for button in page.select("button[formaction]"):
            if "form" in button.attrs:
                assert button["form"] == "actions", path
            else:
                # That of a cron entry, which is sent to see its next runs, and holds a token as well.
                assert button.find_parent("form")["method"] == "post", path
            assert "formmethod" not in button.attrs, path
            seen += 1
    assert seen > 10


# --- what stands in the way


@pytest.mark.parametrize("kind", ["page", "part", "action"])
def test_a_refusal_is_a_page_for_a_page_and_a_part_for_a_part(
    kind: str, client: FlaskClient, access: Access, jobs: dict[str, Job]
) -> None:
    access.held = set()
    if kind == "action":
        headers = SAME_ORIGIN | {"HX-Request": "true"}
        response = client.post("/ops/jobs/jobs/1/retry", headers=headers)
    else:
        response = client.get("/ops/jobs/jobs" + ("/live" if kind == "part" else ""))
    assert response.status_code == 403
    assert response.text.startswith("<!doctype") == (kind == "page")
    assert "You do not have the permission job" in soup(response.text).find(id="dialog-page").text


def test_a_fault_is_said_without_its_trace(make_app: Callable[..., Flask]) -> None:
    class Breaks(AllowAll):
        pass

    app = make_app(access=Breaks(), TESTING=False, PROPAGATE_EXCEPTIONS=False)
    host = app.extensions["opsjobs"]
    host.require_schema = lambda: 1 / 0  # whatever it is that nobody has foreseen
    client = app.test_client()
    for path, method in (("/jobs", "GET"), ("/jobs/live", "GET"), ("/jobs/1/retry", "POST")):
        response = client.open(f"/ops/jobs{path}?q=tag:hunter2", method=method, headers=SAME_ORIGIN)
        assert response.status_code == 500
        assert "A fault in this page" in response.text
        assert "ZeroDivisionError" not in response.text
        assert "Content-Security-Policy" in response.headers


@pytest.mark.parametrize(
    ("path", "status", "todo"),
    [
        ("/nothing", 404, "nothing at this address"),
        ("/jobs/987654", 404, "Ended jobs are removed"),
        ("/jobs?state=nonsense", 422, "Correct it"),
        ("/jobs?q=" + "x" * 5_000, 414, "longer than any we make"),
        ("/queues/nowhere", 404, "appears with its first job"),
    ],
)
def test_each_problem_says_what_to_do(path: str, status: int, todo: str, get: Get) -> None:
    tree = soup(get(path, status).text)
    assert todo in " ".join(tree.main.text.split())
    assert tree.select("main a")


def test_the_documentation_names_every_permission_and_every_key() -> None:
    access, keys = ((sources.ROOT / "docs" / name).read_text() for name in ("access.md", "keys.md"))
    assert [name for name in PERMISSIONS if f"`{name}`" not in access] == []
    assert [what for names, _ in KEYS for what in names.split() if f"`{what}`" not in keys] == []
    assert [entry.key for entry in NAVIGATION if f"`g` then `{entry.key}`" not in keys] == []


def test_how_pages_are_displayed_needs_no_database(make_app: Callable[..., Flask]) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI="postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    response = app.test_client().post(
        "/ops/jobs/display", data={"theme": "dark"}, headers=SAME_ORIGIN
    )
    assert response.status_code == 303
