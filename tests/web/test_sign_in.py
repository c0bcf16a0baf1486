"""What is met signed out leads to the sign-in of the host, where the policy or a setting names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, redirect, url_for
from flask.testing import FlaskClient
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from flask_opsjobs import OpsJobs
from flask_opsjobs.jobs.models import Job
from tests.web.conftest import Access
from tests.web.every import GUARDED, ask, soup

HOST = "http://localhost"
SCRIPT = {"HX-Request": "true"}


class AccessWithSignIn(Access):
    """Leads to the host's page `/sign-in`; answers `address` instead where a test sets it."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = None
        self.address: Any = ""

    def sign_in_url(self, next: str) -> Any:
        if self.raises_in == "sign_in_url":
            raise RuntimeError("the directory is away")
        return url_for("sign_in", next=next) if self.address == "" else self.address


@pytest.fixture
def access() -> AccessWithSignIn:
    return AccessWithSignIn()


@pytest.fixture
def app(make_app: Callable[..., Flask], opsjobs: OpsJobs, access: AccessWithSignIn) -> Flask:
    app = make_app(opsjobs=opsjobs, access=access)

    @app.get("/sign-in")
    def sign_in() -> Any:
        access.actor = "anna"
        return redirect("/ops/jobs")

    return app


def _next(location: str) -> str:
    (back,) = parse_qs(urlsplit(location).query)["next"]
    return back


def test_each_page_leads_to_the_sign_in_and_nothing_else_does(
    client: FlaskClient, jobs: dict[str, Job]
) -> None:
    for url in GUARDED:
        response = ask(client, url, jobs)
        if url.kind == "page":
            assert response.status_code == 303, url
            assert response.location.startswith("/sign-in?next=/ops/jobs"), url
            assert _next(response.location) == response.request.full_path.rstrip("?"), url
            assert response.headers["Cache-Control"] == "no-store"
        else:
            assert response.status_code == 403, url
            assert "HX-Redirect" not in response.headers


def test_a_form_and_an_export_link_to_the_sign_in_and_back_to_their_page(get: Any) -> None:
    path = "/ops/jobs/jobs?q=tag%3Aa%2526b"
    for answer in (
        get("/jobs.csv", 403, headers={"Referer": f"{HOST}{path}"}),
        get("/jobs/live", 403, headers={"Referer": f"{HOST}{path}"}),
    ):
        link = soup(answer.text).select_one("#dialog-page .say a")
        assert _next(str(link["href"])) == path


def test_an_open_page_leaves_for_the_sign_in_and_comes_back_to_itself(get: Any) -> None:
    path = "/ops/jobs/jobs?state=failed"
    referrers = {
        f"{HOST}{path}": path,
        "https://evil.example/ops/jobs/jobs": "/ops/jobs",
        f"{HOST}/shop": "/ops/jobs",
        "": "/ops/jobs",
    }
    for referrer, back in referrers.items():
        answer = get("/jobs/live", 403, headers={**SCRIPT, "Referer": referrer})
        assert _next(answer.headers["HX-Redirect"]) == back
    assert _next(
        get("/jobs/live?back=//evil.example", 403, headers=SCRIPT).headers["HX-Redirect"]
    ) == ("/ops/jobs")


def test_a_page_that_a_script_opens_in_a_dialog_says_to_sign_in_there(get: Any) -> None:
    answer = get("/help", 403, headers=SCRIPT)
    assert soup(answer.text).select_one("#dialog-page a")["href"] == "/sign-in?next=/ops/jobs/help"


@pytest.mark.parametrize(
    "path", ["/..%2F..%2Fevil", "/a//evil.example/", "/%5Cevil", "/jobs?q=%0D%0ALocation:%20//evil"]
)
def test_next_is_one_of_our_pages_however_the_address_is_written(get: Any, path: str) -> None:
    back = _next(get(path, 303).location)
    assert back == "/ops/jobs" or (back.startswith("/ops/jobs/") and ".." not in back)
    assert back.isprintable()


def test_next_has_the_prefix_under_which_the_host_is_mounted(app: Flask) -> None:
    mounted = Client(DispatcherMiddleware(NotFound(), {"/shop": app}))
    location = mounted.get("/shop/ops/jobs/queues/a%2Fb?sort=-age").location
    assert location.startswith("/shop/sign-in?")
    assert _next(location).startswith("/shop/ops/jobs/queues/a")


def test_signing_in_ends_it(client: FlaskClient) -> None:
    answer = client.get("/ops/jobs", follow_redirects=True)
    assert answer.status_code == 200
    assert [one.status_code for one in answer.history] == [303, 302]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (None, ""),
        ("//evil.example/sign-in", "that is no address"),
        ("/\\evil.example", "that is no address"),
        ("javascript:alert(1)", "that is no address"),
        ("/sign-in\r\nSet-Cookie: a=b", "that is no address"),
        (7, "that is no address"),
        ("/ops/jobs/help", "one of our own pages"),
    ],
)
def test_an_answer_that_leads_nowhere_is_403(
    get: Any, access: AccessWithSignIn, caplog: pytest.LogCaptureFixture, address: Any, says: str
) -> None:
    access.address = address
    answer = get("/jobs", 403)
    assert "signed in" in soup(answer.text).find(id="dialog-page").text
    assert not soup(answer.text).select("#dialog-page a")
    assert says in caplog.text
    assert bool(says) == bool(caplog.text)


def test_a_sign_in_of_another_site_is_the_hosts_choice(get: Any, access: AccessWithSignIn) -> None:
    access.address = "https://login.example/?to=shop"
    assert get("/jobs", 303).location == access.address


@pytest.mark.parametrize("raises_in", ["current_actor", "sign_in_url"])
def test_a_policy_that_raises_redirects_nobody(
    get: Any, access: AccessWithSignIn, caplog: pytest.LogCaptureFixture, raises_in: str
) -> None:
    access.raises_in = raises_in
    get("/jobs", 403)
    assert f"the access policy raised on {raises_in}" in caplog.text
    assert "directory is away" not in caplog.text


@pytest.mark.parametrize("name", [7, "", "a\nb"])
def test_who_is_signed_in_under_no_name_is_not_sent_back_and_forth(
    get: Any, access: AccessWithSignIn, caplog: pytest.LogCaptureFixture, name: Any
) -> None:
    access.actor = name
    get("/jobs", 403)
    assert "that is no name" in caplog.text


def test_the_setting_alone_makes_a_link_and_no_redirect(
    make_app: Callable[..., Flask], opsjobs: OpsJobs
) -> None:
    access = Access()
    access.actor = None
    app = make_app(opsjobs=opsjobs, access=access, OPSJOBS_SIGN_IN_URL="/sign-in?from=ops")
    answer = app.test_client().get("/ops/jobs/jobs?q=state:failed")
    assert answer.status_code == 403
    link = soup(answer.text).select_one("#dialog-page a")["href"]
    assert link == "/sign-in?from=ops&next=/ops/jobs/jobs%3Fq%3Dstate%3Afailed"
