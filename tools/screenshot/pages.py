"""Lists the pictures, and how a person with a browser gets to what each shows.

A page of ours that has no picture and is not named in `UNPICTURED` raises, so that none is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask_opsjobs.bridge.allowed import VIEWS
from flask_opsjobs.web.app.urls import URLS
from tests.support.waiting import wait_until

# Ways to another page, and what no picture says more of.
# An entry is changed in the form in which one is made.
# The form that edits a job is like that of an entry.
# Why jobs wait is on the pages of Jobs and of a queue too.
UNPICTURED = {"jump", "missing", "job_raw", "cron_change", "job_change", "jobs_why", "task_form"}
QUEUE = "mail"
LONGEST_S = 120
# Several attempts, and lines that it logged.
FAILED = "state=failed&task=deliver_webhook"
RETRY, PAUSE = (
    "the receiver confirmed that it answers again",
    "mail server moves tonight, ticket OPS-311",
)

Open = Callable[[Any, str], None]


@dataclass(frozen=True)
class Shot:
    """One picture: of which endpoint, and how a browser at the prefix `url` comes to it.

    The endpoints of RQ's own view are `rq.` and the name of a view of `VIEWS`.
    """

    name: str
    endpoint: str
    open: Open
    # Also dark, and on a phone.
    is_main: bool = False
    # A dialog stands over its page: only what is on the screen.
    is_whole: bool = True


def at(path: str) -> Open:
    """By its address."""
    return lambda page, url: go(page, url + path)


def go(page: Any, address: str) -> None:
    """Open an address that must answer with a page."""
    answer = page.goto(address)
    if answer.status != 200:
        raise LookupError(f"{address} answered {answer.status}")


def newest(query: str) -> Open:
    """The newest job of a list, as soon as there is one."""

    def open_it(page: Any, url: str) -> None:
        follow(page, f"{url}/jobs?{query}", "table.jobs tbody th a")

    return open_it


def wait_for_age(page: Any, url: str, minutes: int) -> None:
    """Return when the first job is so old: charts draw what was counted since."""
    await_row(page, f"{url}/jobs?created=>{minutes}m", "table.jobs tbody th a", minutes * 60)


def follow(page: Any, address: str, link: str) -> None:
    """Open the first link of a list, as soon as there is one."""
    await_row(page, address, link)
    with page.expect_navigation():
        page.click(link)


def await_row(page: Any, address: str, link: str, longer: int = 0) -> None:
    """Open a list, and again until it has such a link."""

    def is_there() -> bool:
        go(page, address)
        return page.query_selector(link) is not None

    wait_until(is_there, LONGEST_S + longer, what=f"a row at {address}", every=1)


def press(page: Any, button: str) -> None:
    """Open the preview of an action, over the page."""
    page.get_by_role("button", name=button, exact=True).first.click()
    page.wait_for_selector("dialog[open] .dialog-page")


def carry_out(page: Any, reason: str) -> None:
    """Carry out what the open preview shows, and wait for the receipt."""
    page.fill("dialog[open] textarea[name=reason]", reason)
    page.click("dialog[open] .foot .btn.main")
    page.wait_for_selector("#toast .say")


def _preview(page: Any, url: str) -> None:
    newest(FAILED)(page, url)
    press(page, "Retry…")


def _receipt(page: Any, _url: str) -> None:
    """Carries out what `_preview` left open, and waits until the page behind it shows the result."""
    carry_out(page, RETRY)
    page.wait_for_selector("[aria-labelledby=audit] li")


def _waiting(page: Any, url: str) -> None:
    """A job behind a queue that somebody paused."""
    go(page, f"{url}/queues/{QUEUE}")
    if page.get_by_role("button", name="Pause…", exact=True).count():
        press(page, "Pause…")
        carry_out(page, PAUSE)
    newest(f"state=available&queue={QUEUE}")(page, url)


def _cron(page: Any, url: str) -> None:
    """As soon as the loops have taken the shop's entries over, and one has run."""
    await_row(page, f"{url}/cron", "svg.strip use")


def _run(page: Any, url: str) -> None:
    """The newest run of a workflow, as soon as there is one."""
    follow(page, f"{url}/workflows", "[aria-labelledby=runs] tbody th a")


def _batch(page: Any, url: str) -> None:
    """A price list that is being imported, when some of its rows have failed."""
    go(page, url.removesuffix("/ops/jobs"))
    with page.expect_navigation():
        page.get_by_role("button", name="Import").click()
    with page.expect_navigation():
        page.click('a[href*="/batches/"]')
    await_row(page, page.url, "[aria-labelledby=members] tbody [data-is=failed]")


def _comparison(page: Any, url: str) -> None:
    """That run beside the last one that finished."""
    _run(page, url)
    go(page, f"{page.url.partition('?')[0]}/compare")


def _partition(page: Any, url: str) -> None:
    """By its name: no address holds it."""
    go(page, f"{url}/limiters/customer-api")
    page.fill("#partition", "1")
    with page.expect_navigation():
        page.press("#partition", "Enter")


def _limiters(page: Any, url: str) -> None:
    """As soon as a process has declared one."""
    await_row(page, f"{url}/limiters", "table tbody th a")


def _incident(page: Any, url: str) -> None:
    """Of a job that kills its process, as soon as it has done so twice."""
    follow(page, f"{url}/lifeline?class=poison", "[aria-labelledby=incidents] tbody th a")


def _incident_forensics(page: Any, url: str) -> None:
    """Of the job of that incident."""
    _incident(page, url)
    with page.expect_navigation():
        page.click('[aria-labelledby=jobs] th a, .facts a[href*="/jobs/"]')
    with page.expect_navigation():
        page.click("#fresh a")


def _chained(page: Any, url: str) -> None:
    """A plain RQ job that waits for one that failed."""
    newest("q=origin:rq+state:deferred+task:flask_host.plain_jobs.pack")(page, url)


def _failure(page: Any, url: str) -> None:
    """The failure that happened last, as soon as one is counted."""
    follow(page, f"{url}/lifeline/failures", "[aria-labelledby=failures] tbody th a")


def _rq_jobs(page: Any, url: str) -> None:
    """The registry of the jobs that RQ has as failed, as soon as there is one."""
    follow(page, f"{url}/rq", "td[data-label=failed] a")


def _rq_job(page: Any, url: str) -> None:
    """The first of them."""
    _rq_jobs(page, url)
    with page.expect_navigation():
        page.click("tbody th a")


def _draft(page: Any, url: str) -> None:
    """Of a retry of all that failed. It changes nothing."""
    go(page, f"{url}/jobs?state=failed&selected=all")
    with page.expect_navigation():
        page.click("#selected button[value='job.retry']")


def _task(page: Any, url: str) -> None:
    follow(page, f"{url}/tasks", "table tbody th a.name")


def _decision(page: Any, url: str) -> None:
    follow(page, f"{url}/audit", "table tbody th a, table tbody td a.id")


def resume(page: Any, url: str) -> None:
    """Leave a demo as it was found."""
    go(page, f"{url}/queues/{QUEUE}")
    if page.get_by_role("button", name="Resume…", exact=True).count():
        press(page, "Resume…")
        carry_out(page, "the pictures are taken")


# In the order in which they are taken: what one leaves, the next may show.
SHOTS = (
    Shot("job-failed", "job", newest(FAILED), is_main=True),
    Shot("preview", "preview", _preview, is_whole=False),
    Shot("receipt", "preview", _receipt, is_whole=False),
    Shot("job-waiting", "job", _waiting),
    Shot("overview", "overview", at(""), is_main=True),
    Shot("jobs", "jobs", at("/jobs"), is_main=True),
    Shot("tasks", "tasks", at("/tasks")),
    Shot("task", "task", _task),
    Shot("queues", "queues", at("/queues")),
    Shot("queue", "queue", at(f"/queues/{QUEUE}")),
    Shot("workflows", "workflows", at("/workflows")),
    Shot("signals", "signals", at("/signals")),
    Shot("workflow", "workflow", _run),
    Shot("batch", "batch", _batch),
    Shot("workflow-compare", "workflow_compare", _comparison),
    Shot("batches", "batches", at("/batches")),
    Shot("cron", "cron", _cron),
    # No loop ran at one of its slots: `ASLEEP_FROM` of the demo's story.
    Shot("cron-entry", "cron_entry", at("/cron/nightly_sync")),
    Shot("cron-new", "cron_new", at("/new/cron?expression=30+3+*+*+*&zone=Europe/Berlin")),
    Shot("limiters", "limiters", _limiters),
    Shot("limiter", "limiter", at("/limiters/customer-api")),
    Shot("limiter-partition", "limiter", _partition),
    Shot(
        "limiter-simulate",
        "limiter_simulate",
        at("/limiters/customer-api/simulate?count=60&rate=8&per=10&run_seconds=2"),
    ),
    Shot("workers", "workers", at("/workers")),
    Shot("incident", "incident", _incident),
    Shot("lifeline", "lifeline", at("/lifeline")),
    Shot("failures", "failures", at("/lifeline/failures")),
    Shot("failure", "failure", _failure),
    Shot("operation-draft", "operation", _draft),
    Shot("operations", "operations", at("/operations")),
    Shot("job-adopted", "job", _chained),
    Shot("doctor", "doctor", at("/doctor")),
    Shot("forensics", "forensics", at("/forensics")),
    Shot("forensics-subject", "forensics_subject", _incident_forensics),
    Shot("rq", "rq.queues", at("/rq")),
    Shot("rq-jobs", "rq.jobs", _rq_jobs),
    Shot("rq-job", "rq.job", _rq_job),
    Shot("rq-workers", "rq.workers", at("/rq/0/view/workers")),
    Shot("audit", "audit", at("/audit")),
    Shot("audit-event", "audit_event", _decision),
    Shot("help", "help", at("/help")),
)


def require_all_pictured() -> None:
    """Return when every page has its picture; else raise, naming those that lack one."""
    pages = {url.endpoint for url in URLS if url.kind == "page"} | {
        f"rq.{one.name}" for one in VIEWS
    }
    if lacking := pages - {shot.endpoint for shot in SHOTS} - UNPICTURED:
        raise LookupError(f"no picture is listed of {', '.join(sorted(lacking))}")
