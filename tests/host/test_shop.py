"""The example host: who may sign in, who may see and enqueue what, and that it is installed to the end."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from tests.support.processes import Children

from .conftest import PASSWORDS, sign_in


def test_the_sign_in_page_says_who_may(visitor: FlaskClient) -> None:
    page = visitor.get("/sign-in").text
    for name, password in PASSWORDS.items():
        assert name in page
        assert f"<code>{password}</code>" in page


@pytest.mark.parametrize("name", ["", "nobody", "admin", "ädmin"])
def test_a_wrong_password_stays_outside(visitor: FlaskClient, name: str) -> None:
    answer = visitor.post("/sign-in", data={"name": name, "password": "wrång"})
    assert answer.status_code == 200
    assert "No such name, or another password." in answer.text
    assert visitor.post("/happen/order").status_code == 302


def test_signing_in_leads_back_to_the_page_of_the_jobs(visitor: FlaskClient) -> None:
    link = visitor.get("/ops/jobs/jobs?q=state:failed").location
    assert link == "/sign-in?next=/ops/jobs/jobs?q%3Dstate:failed"
    answer = visitor.post(link, data={"name": "ops-demo", "password": "operate"})
    assert answer.headers["Location"] == "/ops/jobs/jobs?q=state:failed"


@pytest.mark.parametrize(
    "back", ["https://evil.example/", "//evil.example", "/\\evil.example", "x"]
)
def test_signing_in_leads_to_no_other_site(visitor: FlaskClient, back: str) -> None:
    signed = {"name": "ops-demo", "password": "operate"}
    answer = visitor.post("/sign-in", query_string={"next": back}, data=signed)
    assert answer.headers["Location"] == "/"


def test_the_tour_is_linked_and_its_links_lead_somewhere(visitor: FlaskClient) -> None:
    sign_in(visitor, "ops-demo")
    assert 'href="/tour"' in visitor.get("/").text
    assert 'href="/tour"' in visitor.get("/ops/jobs/help").text
    links = re.findall(r'href="(/[^"]*)"', visitor.get("/tour").text.partition("<main>")[2])
    assert len(links) > 6
    for link in links:
        # The cron entry is there once a scheduler has run.
        expected = (404,) if "nightly_sync" in link else (200, 303)
        assert visitor.get(link).status_code in expected, link


def test_the_receiver_of_webhooks_comes_back_by_a_button(
    visitor: FlaskClient, db: Any, shop: ModuleType
) -> None:
    shop.vendors.go_down(shop.happenings.RECEIVER)
    db.session.commit()
    assert "hooks.example is down: what needs it fails" in visitor.get("/").text
    shop.vendors.go_down(shop.exports.FILES)
    db.session.commit()
    assert "files.example is down, and hooks.example is down" in visitor.get("/").text
    sign_in(visitor, "ops-demo")
    assert "answers again" in visitor.post("/receiver-answers", follow_redirects=True).text
    assert "is down" not in visitor.get("/").text


def test_the_cookie_is_left_out_of_what_other_sites_post(visitor: FlaskClient) -> None:
    answer = visitor.post("/sign-in", data={"name": "admin", "password": "rule"})
    cookie = answer.headers["Set-Cookie"]
    assert "SameSite=Lax" in cookie
    assert "HttpOnly" in cookie


def test_nobody_signs_in_by_opening_a_page(visitor: FlaskClient) -> None:
    visitor.get("/sign-in?name=admin&password=rule")
    assert visitor.get("/ops/jobs/jobs").location == "/sign-in?next=/ops/jobs/jobs"


@pytest.mark.parametrize(
    ("name", "page", "payload", "happen"),
    [("viewer", 200, False, 403), ("ops-demo", 200, True, 303), ("admin", 200, True, 303)],
)
def test_each_role_may_what_it_says(
    visitor: FlaskClient, app: Flask, name: str, page: int, payload: bool, happen: int
) -> None:
    sign_in(visitor, name)
    assert visitor.get("/ops/jobs/jobs").status_code == page
    assert visitor.post("/happen/search").status_code == happen
    admin = app.test_client()
    sign_in(admin, "admin")
    place = admin.post("/happen/report").headers["Location"]
    job = re.findall(r"job=(\d+)", place)[0]
    shown = re.sub(r"<[^>]*>", "", visitor.get(f"/ops/jobs/jobs/{job}").text)
    assert ("rows" in shown) == payload


def test_every_button_records_a_job_and_leads_to_it(visitor: FlaskClient, shop: ModuleType) -> None:
    sign_in(visitor, "ops-demo")
    front = visitor.get("/").text
    names = re.findall(r'action="/happen/(\w+)"', front)
    assert names == [happening.__name__ for happening in shop.happenings.SHARES]
    for name in names:
        answer = visitor.post(f"/happen/{name}", follow_redirects=True)
        (job,) = re.findall(r'href="/ops/jobs/jobs/(\d+)"', answer.text)
        assert visitor.get(f"/ops/jobs/jobs/{job}").status_code == 200
    assert visitor.post("/happen/nothing").status_code == 404


def test_an_order_is_all_or_nothing(app: Flask, db: Any, shop: ModuleType) -> None:
    shop.happenings.order()
    db.session.rollback()
    for table in ("invoice", "opsjobs.jobs"):
        assert db.session.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def test_no_secret_is_stored_or_shown(
    visitor: FlaskClient, app: Flask, db: Any, shop: ModuleType
) -> None:
    job = shop.happenings.order()
    bank = shop.happenings.bank_file()
    hook = shop.happenings.webhook()
    db.session.commit()
    stored = db.session.scalar(text("SELECT string_agg(jobs::text, ' ') FROM opsjobs.jobs"))
    assert "tok_" not in stored
    sign_in(visitor, "admin")
    for number, secret in ((job, "tok_"), (bank, "DE02"), (hook, "sk_live")):
        assert secret not in visitor.get(f"/ops/jobs/jobs/{number}").text


def test_it_needs_no_further_installing(database_url: str, app: Flask) -> None:
    """The committed revisions make what the models say, and the installer has nothing to add."""
    result = app.test_cli_runner().invoke(args=["opsjobs", "install", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "missing" not in result.output
    assert "Add to" not in result.output


@pytest.mark.slow
def test_its_migrations_lead_to_its_models(children: Children, empty_database_url: str) -> None:
    env = {"FLASK_SQLALCHEMY_DATABASE_URI": empty_database_url}

    def flask(*words: str) -> str:
        child = children.python("-m", "flask", "--app", "examples/flask_host", *words, env=env)
        assert child.wait(60) == 0, child.log
        return child.log

    flask("db", "upgrade")
    assert "missing" not in flask("opsjobs", "install", "--check")
    assert "No new upgrade operations detected" in flask("db", "check")
    assert "ops-demo / operate" in flask("seed")
    flask("seed")
    flask("db", "downgrade", "base")
