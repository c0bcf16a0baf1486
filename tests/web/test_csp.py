"""Our headers on our responses, whatever the host does; the host's on its own.

And a host that checks tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, after_this_request, make_response
from flask_wtf.csrf import CSRFProtect
from werkzeug.test import TestResponse

from flask_opsjobs.jobs.models import Job
from flask_opsjobs.web.app.files import versions
from tests.support.policies import AllowAll
from tests.web.every import reads, reads_once, soup
from tests.web.test_pages import CSP

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
THEIR_CACHE = "public, max-age=600"
THEIRS = "default-src 'none'; img-src https://cdn.example; frame-ancestors 'self'"
MakeApp = Callable[..., Flask]


def _add_home(app: Flask) -> None:
    app.add_url_rule("/", "home", lambda: "home")


def _strict(app: Flask) -> None:
    """As Flask-Talisman does it."""

    @app.after_request
    def add(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = THEIRS
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = THEIR_CACHE
        response.headers["Cross-Origin-Opener-Policy"] = "unsafe-none"
        response.headers["X-Frame-Options"] = "SAMEORIGIN"
        return response


def _careful(app: Flask) -> None:
    """Sets what is not set yet."""

    @app.after_request
    def add(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", THEIRS)
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        response.headers.setdefault("Cache-Control", THEIR_CACHE)
        return response


def _around(app: Flask) -> None:
    """Sets it from the request, not from the app."""

    @app.before_request
    def begin() -> None:
        @after_this_request
        def add(response: Response) -> Response:
            response.headers["Content-Security-Policy"] = THEIRS
            response.headers["Referrer-Policy"] = "no-referrer"
            response.headers["Cache-Control"] = THEIR_CACHE
            response.cache_control.private = True
            return response


@pytest.mark.slow
@pytest.mark.parametrize("host_does", [_strict, _careful, _around])
def test_ours_wins_on_ours_and_theirs_stays_on_theirs(
    host_does: Callable[[Flask], None], make_app: MakeApp, jobs: dict[str, Job]
) -> None:
    app = make_app()
    _add_home(app)
    host_does(app)
    client = app.test_client()
    for path in [path for _, path in reads_once(jobs)] + ["/ops/jobs/static/0/none.css"]:
        headers = client.get(path).headers
        assert len(headers.getlist("Content-Security-Policy")) == 1
        assert headers["Content-Security-Policy"] == CSP.replace(
            "frame-ancestors 'none'", "frame-ancestors 'self'"
        )
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers.getlist("Cache-Control") == ["no-store"], path
    style = f"/ops/jobs/static/{versions()['opsjobs.css']}/opsjobs.css"
    assert "immutable" in client.get(style).headers["Cache-Control"]
    home = client.get("/").headers
    assert home["Content-Security-Policy"] == THEIRS
    assert home["Referrer-Policy"] == "no-referrer"
    assert home["Cache-Control"].startswith(THEIR_CACHE)


def test_the_class_that_a_host_chose_for_its_responses_is_kept(make_app: MakeApp) -> None:
    class Theirs(Response):
        def sign(self) -> None:
            self.headers["X-Signed"] = "by the host"

    app = make_app()
    app.response_class = Theirs

    @app.after_request
    def sign(response: Any) -> Any:
        if isinstance(response, Theirs):
            response.sign()
        return response

    response = app.test_client().post("/ops/jobs/display", headers=SAME_ORIGIN)
    assert response.headers["Content-Security-Policy"] == CSP
    with app.test_request_context():
        assert isinstance(make_response("x"), Theirs)


# --- a host with Flask-WTF


@pytest.fixture
def guarded(make_app: MakeApp) -> Flask:
    """A host that checks a token on every write, ours too."""
    app = make_app()
    CSRFProtect(app)
    return app


def _send(client: Any, page: TestResponse, form: str, **data: str) -> TestResponse:
    """Submit a form of a page with what it holds."""
    found = soup(page.text).select_one(form)
    held = {str(i["name"]): str(i.get("value", "")) for i in found.select("input[name]")}
    url = str(data.pop("to", found["action"]))
    sent: TestResponse = client.post(url, data=held | data, headers=SAME_ORIGIN)
    return sent


def test_an_action_passes_the_token_of_the_host(guarded: Flask, jobs: dict[str, Job]) -> None:
    client = guarded.test_client()
    page = client.get(f"/ops/jobs/jobs/{jobs['failed'].id}")
    button = soup(page.text).select_one("button[formaction$='/retry']")
    assert button["form"] == "actions"
    made = _send(client, page, "#actions", to=str(button["formaction"]))
    assert made.status_code == 303
    shown = client.get(made.location)
    done = _send(client, shown, "#dialog-page form", reason="the vendor answers again")
    assert done.status_code == 303
    assert "Audit" in soup(client.get(done.location).text).find(id="dialog-page").text
    assert _send(client, page, "form.prefs").status_code == 303


@pytest.mark.slow
def test_the_token_stands_under_the_name_that_the_host_expects(
    guarded: Flask, jobs: dict[str, Job]
) -> None:
    guarded.config["WTF_CSRF_FIELD_NAME"] = "_token"
    client = guarded.test_client()
    forms = 0
    for url, path in reads(jobs):
        if url.kind == "page":
            for form in soup(client.get(path).text).select("form[method=post]"):
                assert form.select_one("[name=_token]"), (path, form)
                assert not form.select_one("[name=csrf_token]")
                forms += 1
    assert forms > 20
    assert _send(client, client.get("/ops/jobs"), "form.prefs").status_code == 303


def test_without_the_token_the_refusal_is_a_page_of_ours(
    guarded: Flask, jobs: dict[str, Job]
) -> None:
    response = guarded.test_client().post(
        f"/ops/jobs/jobs/{jobs['failed'].id}/retry", headers=SAME_ORIGIN
    )
    assert response.status_code == 400
    words = soup(response.text).main.text
    assert "The CSRF token is missing." in words
    assert "Reload the page" in words
    assert response.headers["Content-Security-Policy"] == CSP


def test_a_token_stands_in_no_part_that_refreshes(guarded: Flask, jobs: dict[str, Job]) -> None:
    client = guarded.test_client()
    for url, path in reads(jobs):
        if url.kind == "fragment":
            assert "csrf_token" not in client.get(path).text, path


def test_a_policy_of_the_host_s_own_for_who_may_frame_us_is_kept(make_app: MakeApp) -> None:
    class Frames(AllowAll):
        def current_actor(self) -> str | None:
            @after_this_request
            def allow(response: Response) -> Response:
                response.headers["Content-Security-Policy"] = (
                    "frame-ancestors https://portal.example"
                )
                return response

            return self.actor

    headers = make_app(access=Frames()).test_client().get("/ops/jobs/help").headers
    assert headers["Content-Security-Policy"].endswith("frame-ancestors https://portal.example")
