"""Every URL × method × permission, from the table."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_opsjobs.jobs.models import Job
from flask_opsjobs.web._navigation import NAVIGATION
from flask_opsjobs.web.urls import PERMISSIONS, URLS, Url
from tests.support.policies import AllowAll
from tests.web.conftest import Access
from tests.web.every import GOOD, GUARDED, path_of, soup

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}

guarded = pytest.mark.parametrize("url", GUARDED, ids=lambda url: url.endpoint)


def _ask(client: FlaskClient, url: Url, jobs: dict[str, Job], method: str | None = None) -> Any:
    path = path_of(url, jobs["failed"])
    return client.open(path, method=method or url.methods[0], headers=SAME_ORIGIN)


@guarded
def test_each_url_answers_to_whom_holds_its_permission_alone(
    url: Url, client: FlaskClient, access: Access, jobs: dict[str, Job]
) -> None:
    access.held = {url.permission} if url.permission else set()
    assert _ask(client, url, jobs).status_code == GOOD.get(url.endpoint, 200)


@guarded
def test_each_url_refuses_who_holds_everything_else(
    url: Url, client: FlaskClient, access: Access, jobs: dict[str, Job]
) -> None:
    access.held = set(PERMISSIONS) - {url.permission or ""}
    response = _ask(client, url, jobs)
    if url.permission is None:
        assert response.status_code == GOOD.get(url.endpoint, 200)
        return
    assert response.status_code == 403
    assert url.permission in soup(response.text).main.text
    assert "GatewayTimeout" not in response.text


@guarded
def test_each_url_refuses_who_is_not_signed_in_and_never_redirects(
    url: Url, client: FlaskClient, access: Access, jobs: dict[str, Job]
) -> None:
    access.actor = None
    response = _ask(client, url, jobs)
    assert response.status_code == 403
    assert "signed in" in soup(response.text).main.text
    assert (url.permission or "") in response.text
    assert not soup(response.text).select("nav a")


@guarded
@pytest.mark.parametrize("method", ["current_actor", "can"])
def test_a_policy_that_raises_means_no(
    url: Url,
    method: str,
    client: FlaskClient,
    access: Access,
    jobs: dict[str, Job],
    caplog: pytest.LogCaptureFixture,
) -> None:
    access.raises_in = method
    response = _ask(client, url, jobs)
    if url.permission or method == "current_actor":
        assert response.status_code == 403
    assert "directory is away" not in response.text
    if url.permission:
        assert "the access policy raised" in caplog.text


@guarded
@pytest.mark.parametrize("method", METHODS)
def test_each_url_answers_to_its_own_methods_only(
    url: Url, method: str, client: FlaskClient, jobs: dict[str, Job]
) -> None:
    status = _ask(client, url, jobs, method).status_code
    if method in url.methods or (method == "HEAD" and url.methods == ("GET",)):
        assert status == GOOD.get(url.endpoint, 200)
    else:
        assert status in (404, 405)


def test_denials_go_to_the_log(
    client: FlaskClient, access: Access, caplog: pytest.LogCaptureFixture
) -> None:
    access.held = set()
    with caplog.at_level(logging.WARNING, logger="flask_opsjobs"):
        client.get("/ops/jobs/jobs")
    assert "ops-demo was denied jobs.view on /ops/jobs/jobs" in caplog.text


def test_a_page_about_a_job_is_asked_with_that_job_as_subject(
    client: FlaskClient, access: Access, jobs: dict[str, Job]
) -> None:
    job = jobs["failed"]
    client.get(f"/ops/jobs/jobs/{job.id}")
    assert ("jobs.view", f"job/{job.id}") in access.asked
    assert ("payload.view", f"job/{job.id}") in access.asked


def test_assets_are_for_everybody_and_kept_under_their_version(
    client: FlaskClient, access: Access, jobs: dict[str, Job]
) -> None:
    access.actor = None
    (url,) = (url for url in URLS if url.kind == "asset")
    path = path_of(url, jobs["failed"])
    assert "immutable" in client.get(path).headers["Cache-Control"]
    assert client.get(path.replace("opsjobs.css", "../pyproject.toml")).status_code in (403, 404)
    other = client.get("/ops/jobs/static/0/opsjobs.css")
    assert other.headers["Cache-Control"] == "no-cache"


def test_the_navigation_has_live_links_only_and_only_what_one_may_open(
    client: FlaskClient, access: Access, jobs: dict[str, Job]
) -> None:
    links = soup(client.get("/ops/jobs").text).select("nav.side a")
    assert [link.text for link in links] == [entry.label for entry in NAVIGATION]
    assert [client.get(str(link["href"])).status_code for link in links] == [200] * len(links)
    access.held = {"overview.view"}
    assert [a.text for a in soup(client.get("/ops/jobs").text).select("nav.side a")] == ["Overview"]


def test_the_prefix_is_the_first_page_with_and_without_a_slash(client: FlaskClient) -> None:
    assert client.get("/ops/jobs").status_code == 200
    assert client.get("/ops/jobs/").status_code == 200


def test_nothing_of_the_host_s_own_is_touched(client: FlaskClient) -> None:
    response = client.get("/nothing-of-the-host")
    assert response.status_code == 404
    assert "Content-Security-Policy" not in response.headers
    assert "OpsJobs" not in response.text


@pytest.mark.parametrize("answer", [5, object(), "", "  ", b"ops"])
def test_who_has_no_name_is_nobody(answer: Any, make_app: Callable[..., Flask]) -> None:
    class Odd(AllowAll):
        def current_actor(self) -> Any:
            return answer

    assert make_app(access=Odd()).test_client().get("/ops/jobs").status_code == 403
