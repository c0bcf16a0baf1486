"""Every URL of ours as a path, made from the table, so that a new one is covered when it is listed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bs4 import BeautifulSoup
from bs4.builder._lxml import LXMLTreeBuilder
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_opsjobs.jobs.models import Job
from flask_opsjobs.web.app.files import versions
from flask_opsjobs.web.app.urls import URLS, Url

PREFIX = "/ops/jobs"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
GUARDED = [url for url in URLS if url.kind != "asset"]
# What a URL answers when nothing is in the way and it is asked with `form_of`; else an action 303, the rest
# 200. What would make or change a cron entry, or enqueue a job, is refused: these hosts have no task.
# tests/web/test_cron.py and test_task_form.py have one.
WITHOUT_TASK = {"cron_create": 422, "cron_edit": 422, "cron_make": 422, "task_enqueue": 422}
SHOWN_AGAIN = {"cron_new_runs": 200, "cron_change_runs": 200}
GOOD = {
    **WITHOUT_TASK,
    **SHOWN_AGAIN,
    # Nobody has left a job.
    "worker_rescue": 404,
    # There is no such worker.
    "worker_note": 404,
    # Without a reason.
    "operation_start": 422,
    "jump": 303,
    "missing": 404,
    "preview_execute": 404,
    "view_delete": 404,
    "audit_view_delete": 404,
}


def good(url: Url) -> int:
    """The status of the answer when nothing is in the way.

    A garbage token or a view of nobody's is not found.
    """
    return GOOD.get(url.endpoint, 303 if url.kind == "action" else 200)


def form_of(url: Url, job: Job) -> dict[str, str]:
    """What an action is sent."""
    form = {
        "job": str(job.id),
        "worker": "web-1",
        "lease": "1-1",
        "delivery": "opsjobs-1-1",
        "name": "mine",
        "count": "1",
        "minutes": "5",
        "due_at": "now",
        "priority": "3",
        "note": "a text that is long enough",
    }
    form |= {
        "step": "fetch",
        "result": "",
        "wait": "paid",
        "payload": "",
        "signal": "1",
        "until": "2h",
        "deploy": "next",
        "more": "3",
        "rate": "",
    }
    if url.endpoint == "operation_draft":  # its other fields are those of a search
        return {"action": "job.retry", "state": "failed", "rate": ""}
    if url.endpoint == "failure_ignore":  # it takes one of three
        form["until"] = ""
    return form if url.kind == "action" else {}


# The names of what is not called as the queue of a job.
NAMES = {"lease_release": "1-1", "delivery_remove": "opsjobs-1-1"}


def _name_of(url: Url, job: Job) -> str:
    if url.kind == "asset":
        return "opsjobs.css"
    return NAMES.get(url.endpoint, job.task if url.endpoint.startswith("task") else job.queue)


def path_of(url: Url, job: Job) -> str:
    """The URL's path about `job`."""
    values = {
        "<job_id>": str(job.id),
        "<batch_id>": "1",
        "<incident_id>": "1",
        "<failure_id>": "1",
        "<operation_id>": "1",
        "<view_id>": "987654",
        "<workflow_id>": "1",
        "<limiter>": "customer-api",
        "<kind>": "queue",
        "<path:key>": job.queue,
        "<int:sequence>": "1",
        "<int:preview_id>": "1",
        "<path:rest>": "nothing/here",
        "<version>": versions()["opsjobs.css"],
        "<path:name>": _name_of(url, job),
    }
    rule = url.rule
    for part, value in values.items():
        rule = rule.replace(part, value)
    return PREFIX + rule + (f"?to={job.id}" if url.endpoint == "jump" else "")


def ask(
    client: FlaskClient, url: Url, jobs: Mapping[str, Job], method: str | None = None
) -> TestResponse:
    """The answer of a URL about the failed job."""
    job = jobs["failed"]
    return client.open(
        path_of(url, job),
        method=method or url.methods[0],
        headers=SAME_ORIGIN,
        data=form_of(url, job),
    )


def reads(jobs: Mapping[str, Job]) -> Iterator[tuple[Url, str]]:
    """Every page and fragment, those about a job once for a job of each state."""
    for url in GUARDED:
        if url.kind in ("page", "fragment"):
            chosen = jobs.values() if "<job_id>" in url.rule else [jobs["failed"]]
            yield from ((url, path_of(url, job)) for job in chosen)


def reads_once(jobs: Mapping[str, Job]) -> Iterator[tuple[Url, str]]:
    """Every page and fragment once, for what does not depend on the state of a job."""
    return reads({"failed": jobs["failed"]})


def draft_form(page: BeautifulSoup, label: str) -> dict[str, str]:
    """What this button of the form `operate` sends, which drafts an operation."""
    (form,), (button,) = page.select("form#operate"), page.find_all("button", string=label)
    assert (form["action"], button["form"]) == (f"{PREFIX}/operations/draft", "operate")
    fields = {str(field["name"]): str(field["value"]) for field in form.select("input[name]")}
    return {**fields, str(button["name"]): str(button["value"])}


# A third of the elements of a page, alike on each.
_SPRITE = re.compile(r'<svg class="sprite".*?</svg>', re.DOTALL)


class _Builder(LXMLTreeBuilder):
    """Makes trees without a look for namespaces at each tag: HTML has none."""

    def start(self, tag: Any, attrib: Any, nsmap: Any = None) -> None:
        self.soup.handle_starttag(tag, None, None, self.attribute_dict_class(attrib))

    def end(self, name: Any) -> None:
        self.soup.endData()
        self.soup.handle_endtag(name)


def soup(text: str, *, with_sprite: bool = False) -> BeautifulSoup:
    """The HTML as a tree, in which the sprite mostly only takes time."""
    # Twice as fast as Python's own parser.
    shown = text if with_sprite else _SPRITE.sub("", text, count=1)
    return BeautifulSoup(shown, builder=_Builder())
