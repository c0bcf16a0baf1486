"""Every URL × method × role, from the table."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from examples.flask_host.opsjobs_access import HostAccess
from examples.flask_host.people import PEOPLE
from flask_opsjobs.actions.registry import ACTIONS
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.web.app.access import PAYLOAD, PERMISSIONS
from flask_opsjobs.web.app.shell import NAVIGATION
from flask_opsjobs.web.app.urls import BRIDGE_URLS, URLS, Url
from tests.support.policies import AllowAll
from tests.web.conftest import Access
from tests.web.every import GUARDED, PREFIX, SAME_ORIGIN, ask, form_of, good, path_of, soup

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# HEAD is answered as GET is, and what no URL takes is refused alike.
_ALIKE = ("HEAD", "PUT", "PATCH", "OPTIONS")
BY_ROLE = [
    pytest.param(method, marks=pytest.mark.variants if method in _ALIKE else ())
    for method in METHODS
]


def _answers(url: Url, method: str) -> bool:
    return method in url.methods or (method == "HEAD" and "GET" in url.methods)


class _Role(HostAccess):
    """The example host's policy, asked by `actor`: one of its people, a stranger or nobody."""

    actor = ""

    def current_actor(self) -> str | None:
        return self.actor or None


class _DenyAll(AllowAll):
    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        return False


@pytest.mark.parametrize("method", BY_ROLE)
def test_each_role_of_the_example_may_what_its_policy_says(
    method: str, make_app: Callable[..., Flask], jobs: dict[str, Job]
) -> None:
    access = _Role()
    client = make_app(access=access).test_client()
    for role, url in product([*PEOPLE, "", "stranger"], GUARDED):
        access.actor = role
        status = ask(client, url, jobs, method).status_code
        asked = f"{role or 'nobody'} asks for {url.endpoint}"
        if method == "TRACE" or (url.endpoint == "overview" and not _answers(url, method)):
            assert status == 405, asked  # no rule of ours has it: it is the host's
        elif not role:
            assert status == 403, asked
        elif not _answers(url, method):
            # `GET /jobs/retry` asks for a job of that name.
            assert status in (403, 404, 405), asked
        elif url.permission and not access.can(role, url.permission):
            assert status == 403, asked
        elif url.endpoint != "preview":  # which is another's
            assert status == good(url), asked


@pytest.mark.parametrize("method", METHODS)
def test_a_policy_that_denies_everything_lets_nobody_in(
    method: str, make_app: Callable[..., Flask], jobs: dict[str, Job]
) -> None:
    client = make_app(access=_DenyAll()).test_client()
    for url in GUARDED:
        if _answers(url, method) and url.permission:
            response = ask(client, url, jobs, method)
            assert response.status_code == 403, url.endpoint
            assert method == "HEAD" or url.permission in response.text


@pytest.mark.lane
def test_each_url_answers_to_whom_holds_its_permission_alone(
    client: FlaskClient, access: Access, jobs: dict[str, Job]
) -> None:
    # The form that edits an entry holds its arguments; a preview and a draft are about a retry.
    also = {
        "cron_change": PAYLOAD,
        "cron_change_runs": PAYLOAD,
        "cron_edit": PAYLOAD,
        "preview": "job.retry",
        **{url.endpoint: "queues.view" for url in URLS if url.endpoint.startswith("forensics_")},
        "operation_draft": "job.retry",
    }
    for url in GUARDED:
        needed = (url.permission, also.get(url.endpoint))
        access.held = {permission for permission in needed if permission}
        assert ask(client, url, jobs).status_code == good(url), url.endpoint


def test_each_url_refuses_who_holds_everything_else(
    client: FlaskClient, access: Access, jobs: dict[str, Job]
) -> None:
    for url in GUARDED:
        access.held = set(PERMISSIONS) - {url.permission or ""}
        response = ask(client, url, jobs)
        if url.permission is None:
            assert response.status_code == good(url), url.endpoint
            continue
        assert response.status_code == 403, url.endpoint
        assert url.permission in soup(response.text).find(id="dialog-page").text
        assert "GatewayTimeout" not in response.text


def test_each_url_refuses_who_is_not_signed_in_and_never_redirects(
    client: FlaskClient, access: Access, jobs: dict[str, Job]
) -> None:
    access.actor = None
    for url in GUARDED:
        response = ask(client, url, jobs)
        assert response.status_code == 403
        assert "signed in" in soup(response.text).find(id="dialog-page").text
        assert (url.permission or "") in response.text
        assert not soup(response.text).select("nav a")


@pytest.mark.parametrize("method", ["current_actor", "can"])
def test_a_policy_that_raises_means_no(
    method: str,
    client: FlaskClient,
    access: Access,
    jobs: dict[str, Job],
    caplog: pytest.LogCaptureFixture,
) -> None:
    access.raises_in = method
    for url in GUARDED:
        caplog.clear()
        response = ask(client, url, jobs)
        if url.permission or method == "current_actor":
            assert response.status_code == 403
            (said,) = [r for r in caplog.records if "the access policy raised" in r.message]
            assert re.search(r": denied \(RuntimeError at .*/conftest\.py:\d+\)$", said.message)
            assert said.exc_info is None
        assert "directory is away" not in response.text


def test_another_method_is_refused_by_a_page_that_names_the_right_one(
    client: FlaskClient, jobs: dict[str, Job]
) -> None:
    for path, method, allowed in (
        ("/jobs", "POST", "GET"),
        (f"/jobs/{jobs['failed'].id}/retry", "PUT", "POST"),
        ("/queues/a/b/pause", "DELETE", "GET"),
    ):
        response = client.open(f"/ops/jobs{path}", method=method, headers=SAME_ORIGIN)
        assert response.status_code == 405
        assert response.headers["Allow"] == allowed
        assert f"only to {allowed}" in soup(response.text).main.text


def test_no_address_with_a_nul_is_found(client: FlaskClient, jobs: dict[str, Job]) -> None:
    asked = set()
    for url in GUARDED:
        rule = re.sub("<(?!int:|kind)[^>]*>", "a%00b", url.rule).replace("<kind>", "queue")
        if rule != url.rule and "<" not in rule:
            path, form = f"{PREFIX}{rule}", form_of(url, jobs["failed"])
            answer = client.open(path, method=url.methods[0], headers=SAME_ORIGIN, data=form)
            assert (answer.status_code, url.endpoint) == (404, url.endpoint)
            assert "There is nothing at this address." in answer.text
            asked.add(url.endpoint)
    assert {"queue", "queue_pause", "task", "cron_entry", "limiter"} <= asked


def test_permissions_are_those_of_the_urls_and_of_the_catalog() -> None:
    assert len(PERMISSIONS) == len(set(PERMISSIONS))
    needed = {url.permission for url in (*URLS, *BRIDGE_URLS) if url.permission}
    assert needed | {PAYLOAD} == set(PERMISSIONS)
    assert {action.permission for action in ACTIONS.values()} < set(PERMISSIONS)
    assert {entry.permission for entry in NAVIGATION} < set(PERMISSIONS)
    assert all(name.endswith(".view") or name in ACTIONS for name in PERMISSIONS)


def test_denials_go_to_the_log(
    client: FlaskClient, access: Access, caplog: pytest.LogCaptureFixture
) -> None:
    access.held = set()
    with caplog.at_level(logging.WARNING, logger="flask_opsjobs"):
        client.get("/ops/jobs/jobs")
    assert "tester was denied jobs.view on /ops/jobs/jobs" in caplog.text


def test_a_page_about_one_thing_is_asked_with_it_as_subject(
    client: FlaskClient, access: Access, jobs: dict[str, Job]
) -> None:
    job = f"job/{jobs['failed'].id}"
    client.get(f"/ops/jobs/jobs/{jobs['failed'].id}")
    client.get(f"/ops/jobs/jobs/00{jobs['failed'].id}/raw")  # the same job, whoever writes zeros
    client.get("/ops/jobs/queues/default")
    client.post("/ops/jobs/queues/x/y/pause", headers=SAME_ORIGIN)
    assert {("jobs.view", job), ("payload.view", job), ("job.retry", job)} <= set(access.asked)
    assert not {subject for _, subject in access.asked if str(subject).startswith("job/0")}
    assert ("queues.view", "queue/default") in access.asked
    assert ("queue.pause", "queue/x/y") in access.asked


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
    labels = [link.find(string=True, recursive=False) for link in links]
    assert labels == [entry.label for entry in NAVIGATION]
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


@pytest.mark.parametrize("answer", [5, object(), "", "  ", b"ops", "a\0b", "a\ud800"])
def test_who_has_no_name_is_nobody(answer: Any, make_app: Callable[..., Flask]) -> None:
    class Odd(AllowAll):
        def current_actor(self) -> Any:
            return answer

    assert make_app(access=Odd()).test_client().get("/ops/jobs").status_code == 403
