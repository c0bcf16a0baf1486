"""Headers, the parts that refresh, preferences, and the pages that say why there is no page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from difflib import unified_diff
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from werkzeug.datastructures import Headers

from flask_opsjobs.core.reading import read_snapshot
from flask_opsjobs.core.round_trips import start_reading
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.web.app.urls import URLS
from tests.support.clock import Clock
from tests.web.conftest import Access, Drawn
from tests.web.every import reads, soup
from tests.web.rows import ago, make_job

Get = Callable[..., Any]

CSP = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


def test_times_are_those_of_utc_whatever_time_zone_the_database_has(
    session: Session, make_app: Callable[..., Flask]
) -> None:
    """In Kathmandu, clocks are ahead by 5 hours and 45 minutes."""
    job = make_job(session, "scheduled", due_at=ago(hours=-1))
    session.commit()
    app = make_app(
        SQLALCHEMY_ENGINE_OPTIONS={"connect_args": {"options": "-c TimeZone=Asia/Kathmandu"}}
    )
    page = soup(app.test_client().get(f"/ops/jobs/jobs/{job.id}").text)
    made, due = (
        datetime.fromisoformat(str(page.select_one(f"time[data-as={kind}]")["datetime"]))
        for kind in ("clock", "due")
    )
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)
    assert due == job.due_at.replace(microsecond=0)
    host = app.extensions["opsjobs"]
    for engine in (host.pages, host.engine):
        with read_snapshot(engine.connect(), 20) as read:
            assert read.now.tzinfo is UTC
    with read_snapshot(host.pages.connect(), 20) as read:
        together = start_reading(read.session, Session.scalar, select(func.now()))
        assert [read.now.tzinfo, together.value.tzinfo] == [UTC, UTC]
    assert abs(datetime.now(UTC) - read.now) < timedelta(minutes=1)


def test_every_response_carries_a_strict_policy(
    client: FlaskClient, access: Access, drawn: Drawn
) -> None:
    def look(path: str, headers: Headers) -> None:
        assert headers["Content-Security-Policy"] == CSP
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        if "/static/" not in path:
            assert headers["Cache-Control"] == "no-store"

    for _, path, response, _ in drawn:
        look(path, response.headers)
    style = soup(client.get("/ops/jobs").text).select_one("link[rel=stylesheet]")
    for path in (str(style["href"]), "/ops/jobs/static/0/none.css"):
        look(path, client.get(path).headers)
    access.actor = None
    look("/ops/jobs", client.get("/ops/jobs").headers)


def test_no_page_has_anything_inline_or_from_elsewhere(client: FlaskClient, drawn: Drawn) -> None:
    files = set()
    for _, _, _, tree in drawn:
        assert not tree.select("style, [style], base, object, embed, iframe")
        for element in tree.find_all(True):
            assert not [name for name in element.attrs if name.startswith(("on", "hx-on"))]
        for script in tree.find_all("script"):
            assert script.get("src")
            assert not script.text
        for element in tree.select("[src], link[href], form[action], use[href]"):
            where = str(element.get("src") or element.get("action") or element.get("href"))
            assert where.startswith(("/", "#")), where
            if element.name in ("script", "link"):
                files.add(where)
    assert len(files) > 1
    for path in files:
        assert client.get(path).status_code == 200, path


def test_a_zero_in_a_table_is_grey(drawn: Drawn) -> None:
    zeros = [
        (path, cell)
        for _, path, _, tree in drawn
        for cell in tree.select("table.rows td.n:not(#numbers-table td)")
        if cell.text.strip() == "0"
    ]
    assert len(zeros) > 20
    assert {(path, str(cell)) for path, cell in zeros if "mute" not in cell["class"]} == set()


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_a_page_contains_its_fragment_s_exact_text_and_its_tag(
    client: FlaskClient, jobs: dict[str, Job]
) -> None:
    paths = {path for url, path in reads(jobs) if url.kind == "page" and "live" not in url.rule}
    seen = 0
    for path in [*paths, "/ops/jobs/jobs?state=failed", "/ops/jobs/jobs?queue=default&limit=50"]:
        page = client.get(path)
        region = soup(page.text).select_one("#live")
        if region is None:
            continue
        seen += 1
        fragment = client.get(str(region["hx-get"]))
        part, beside, _ = fragment.text.partition('<div id="sources"')
        assert part in page.text
        assert beside
        assert fragment.headers["ETag"] == region["data-etag"]
        again = client.get(
            str(region["hx-get"]), headers={"If-None-Match": str(region["data-etag"])}
        )
        assert again.status_code == 304
        assert again.data == b""
    assert seen >= len([url for url in URLS if url.kind == "fragment"])


@pytest.mark.slow
def test_what_has_not_changed_answers_304_ten_seconds_later(
    client: FlaskClient, jobs: dict[str, Job], clock: Clock
) -> None:
    paths = [path for url, path in reads(jobs) if url.kind == "fragment"]
    assert "/ops/jobs/live" in paths
    # Drawings move on in steps: of the loops every 300 s, of the incident's episodes every 32 s.
    while any(clock.now.timestamp() % step >= step - 10 for step in (32, 300)):
        clock.forward(seconds=10)
    first = {path: client.get(path) for path in paths}
    clock.forward(seconds=10)
    for path, before in first.items():
        again = client.get(path, headers={"If-None-Match": before.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b""), (
            f"{path}: {_difference(before, again)}"
        )


def _difference(before: Any, again: Any) -> str:
    return "\n".join(unified_diff(before.text.splitlines(), again.text.splitlines(), n=0))


def test_a_fragment_changes_its_tag_when_something_happened(
    client: FlaskClient, session: Session, jobs: dict[str, Job]
) -> None:
    path = f"/ops/jobs/jobs/{jobs['started'].id}/live"
    tag = client.get(path).headers["ETag"]
    session.execute(text("UPDATE opsjobs.attempts SET progress_done = 8 WHERE outcome IS NULL"))
    session.commit()
    changed = client.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert "8 of 9" in changed.text


@pytest.mark.slow
def test_everything_lies_below_a_prefix_that_a_proxy_adds(
    client: FlaskClient, jobs: dict[str, Job]
) -> None:
    for _, path in reads(jobs):
        page = client.get(path, environ_overrides={"SCRIPT_NAME": "/behind"})
        for element in soup(page.text).select("a[href^='/'], [src], form, [hx-get]"):
            where = element.get("href") or element.get("src") or element.get("action")
            assert str(where or element.get("hx-get")).startswith("/behind/"), element


# --- preferences

SAME = {"Sec-Fetch-Site": "same-origin"}
CHOSEN = {"theme": "dark", "zone": "local", "refresh": "30", "back": "/ops/jobs/jobs?state=failed"}


def test_preferences_are_kept_and_lead_back(client: FlaskClient) -> None:
    response = client.post("/ops/jobs/display", data=CHOSEN, headers=SAME)
    assert response.status_code == 303
    assert response.location == "/ops/jobs/jobs?state=failed"
    for cookie in response.headers.getlist("Set-Cookie"):
        assert "HttpOnly" in cookie
        assert "Path=/ops/jobs" in cookie
        assert "SameSite=Lax" in cookie
    root = soup(client.get("/ops/jobs").text).html
    assert (root["data-theme"], root["data-zone"], root["data-refresh"]) == ("dark", "local", "30")


def test_a_cookie_with_nonsense_is_the_default(client: FlaskClient) -> None:
    client.set_cookie("opsjobs_theme", '"><script>')
    assert soup(client.get("/ops/jobs").text).html["data-theme"] == "system"


@pytest.mark.parametrize(
    "back",
    [
        "",
        "https://evil.example/",
        "//evil.example",
        "/ops/jobsevil",
        "/ops/jobs/\r\nX: y",
        "/ops/jobs/../../elsewhere",
        "/ops/jobs/%2E%2e/x",
    ],
)
def test_preferences_never_lead_elsewhere(back: str, client: FlaskClient) -> None:
    response = client.post("/ops/jobs/display", data={"back": back}, headers=SAME)
    assert response.location == "/ops/jobs"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Origin": "http://localhost"}, 303),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
    ],
)
def test_a_write_from_elsewhere_is_refused(
    headers: dict[str, str], status: int, client: FlaskClient
) -> None:
    response = client.post("/ops/jobs/display", data={"theme": "dark"}, headers=headers)
    assert response.status_code == status
    assert ("Set-Cookie" in response.headers) == (status == 303)


def test_a_preference_that_is_no_choice_is_named(client: FlaskClient) -> None:
    response = client.post("/ops/jobs/display", data={"theme": "pink"}, headers=SAME)
    assert response.status_code == 422
    assert "theme: 'pink' is not one of system, light, dark" in soup(response.text).main.text


def test_a_form_too_large_is_refused(client: FlaskClient) -> None:
    response = client.post("/ops/jobs/display", data={"back": "x" * 1_000_000}, headers=SAME)
    assert response.status_code == 413


# --- no page


def test_without_a_schema_pages_say_how_to_make_it(
    make_app: Callable[..., Flask], empty_database_url: str
) -> None:
    client = make_app(SQLALCHEMY_DATABASE_URI=empty_database_url).test_client()
    for path in ("", "/live", "/jobs", "/jobs/1"):
        response = client.get(f"/ops/jobs{path}")
        assert response.status_code == 503
        assert "flask db upgrade" in response.text


def test_a_schema_that_goes_away_is_said_too(get: Get, session: Session) -> None:
    get("/jobs")
    session.execute(text("DROP SCHEMA opsjobs CASCADE"))
    session.commit()
    assert "flask db upgrade" in get("/jobs", 503).text


def test_a_slow_statement_ends_in_a_page_that_says_what_to_do(
    make_app: Callable[..., Flask], session: Session
) -> None:
    client = make_app(OPSJOBS_PAGE_TIMEOUT_SECONDS=0.2).test_client()
    session.execute(text("LOCK TABLE opsjobs.jobs IN ACCESS EXCLUSIVE MODE"))
    for path in ("", "/jobs", "/jobs/1", "/jobs/live"):
        response = client.get(f"/ops/jobs{path}")
        assert response.status_code == 503
        assert "did not answer within 0.2 s" in response.text
        assert "Narrow the filter" in response.text
    session.rollback()
    assert client.get("/ops/jobs/jobs").status_code == 200


def test_a_database_that_is_away_is_said(make_app: Callable[..., Flask]) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI="postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    response = app.test_client().get("/ops/jobs")
    assert response.status_code == 503
    assert "does not answer" in response.text
    assert "nobody" not in response.text


def test_a_schema_that_is_newer_than_the_code_is_said(
    client: FlaskClient, session: Session
) -> None:
    session.execute(text("INSERT INTO opsjobs.schema_version (version) VALUES (99)"))
    session.commit()
    response = client.get("/ops/jobs/jobs")
    assert response.status_code == 503
    said = soup(response.text).main.text
    assert "Schema newer than the code" in said
    assert "is at version 99, this code runs on up to version" in said
    session.execute(text("DELETE FROM opsjobs.schema_version WHERE version = 99"))
    session.commit()
    assert client.get("/ops/jobs/jobs").status_code == 200


def test_a_pool_without_a_connection_is_said(make_app: Callable[..., Flask]) -> None:
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    app = make_app(SQLALCHEMY_ENGINE_OPTIONS=options, OPSJOBS_PAGE_CONNECTIONS=1)
    host = app.extensions["opsjobs"]
    with host.engine.connect():  # the host's: pages have a pool of their own
        assert app.test_client().get("/ops/jobs").status_code == 200
    with host.pages.connect():
        response = app.test_client().get("/ops/jobs")
        assert response.status_code == 503
        assert "in use" in response.text
    assert app.test_client().get("/ops/jobs").status_code == 200


def test_what_was_denied_or_missing_has_a_way_on(
    get: Get, access: Access, jobs: dict[str, Job]
) -> None:
    access.held = {"overview.view"}
    links = [str(a["href"]) for a in soup(get("/jobs", 403).text).select("main a")]
    assert links == ["/ops/jobs"]


def test_a_host_s_csrf_token_goes_with_our_form(app: Flask, client: FlaskClient) -> None:
    assert not soup(client.get("/ops/jobs").text).select("[name=csrf_token]")
    app.jinja_env.globals["csrf_token"] = lambda: "of the host"
    tree = soup(client.get("/ops/jobs").text)
    assert tree.select_one("form.prefs [name=csrf_token]")["value"] == "of the host"
