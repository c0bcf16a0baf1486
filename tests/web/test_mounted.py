"""A host that another application serves below `/shop`: whatever leads back, leads back below `/shop`."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from flask_opsjobs.core.db import LARGEST_ID
from flask_opsjobs.jobs.models import Job
from tests.web.every import reads_once, soup

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def mounted(app: Flask) -> Client:
    """Asks the application of which the host is a part."""
    return Client(DispatcherMiddleware(NotFound(), {"/shop": app}))


def _back(page: Any) -> str:
    return str(soup(page.text).select_one("form.prefs [name=back]")["value"])


def test_links_to_jobs_lead_to_them_below_any_prefix(app: Flask, jobs: dict[str, Job]) -> None:
    """They are made from one address with the largest id, and a prefix may have that id too."""
    prefix = f"/{LARGEST_ID}"
    client = Client(DispatcherMiddleware(NotFound(), {prefix: app}))
    rows = soup(client.get(f"{prefix}/ops/jobs/jobs").text).select("a.id")
    expected = {f"{prefix}/ops/jobs/jobs/{job.id}" for job in jobs.values()}
    assert {str(row["href"]) for row in rows} == expected


@pytest.mark.slow
def test_display_choices_lead_back_to_the_page_they_were_made_on(
    mounted: Client, jobs: dict[str, Job]
) -> None:
    paths = [f"/shop{path}" for url, path in reads_once(jobs) if url.kind == "page"]
    searched = "/shop/ops/jobs/jobs?state=failed&q=tag:a%26b%2Bc"
    # The last one is answered by a page that says that there is no such queue.
    for path in [*paths, searched, "/shop/ops/jobs/queues/a%3Fb"]:
        page = mounted.get(path)
        if page.status_code == 303:  # of `jump`, which has no page of its own
            continue
        sent = {"back": _back(page), "theme": "dark"}
        answer = mounted.post("/shop/ops/jobs/display", data=sent, headers=SAME_ORIGIN)
        assert answer.location == path


def test_a_preview_and_the_help_lead_back_to_the_page_they_were_opened_on(
    mounted: Client, jobs: dict[str, Job]
) -> None:
    path = f"/shop/ops/jobs/jobs/{jobs['failed'].id}"
    page = mounted.get(path)
    sent = {"back": _back(page)}
    made = mounted.post(f"{path}/retry", data=sent, headers=SAME_ORIGIN)
    assert made.location.startswith("/shop/ops/jobs/previews/")
    form = soup(mounted.get(made.location).text).select_one("#dialog-page form")
    assert form.select_one("a[data-close]")["href"] == path
    held = {str(i["name"]): str(i.get("value", "")) for i in form.select("input[name]")}
    held["reason"] = "the vendor answers again"
    done = mounted.post(str(form["action"]), data=held, headers=SAME_ORIGIN)
    assert (
        soup(mounted.get(done.location).text).select_one("#dialog-page a[data-close]")["href"]
        == path
    )
    help_ = mounted.get("/shop/ops/jobs/help", headers={"Referer": f"http://localhost{path}"})
    assert soup(help_.text).select_one("main a[data-close]")["href"] == path
