"""Names of 200 characters:
no page scrolls sideways, and each shows where a name begins and ends.
"""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs import JobFilter
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.lifecycle import STATES
from flask_opsjobs.operations.operator import BulkOperator
from flask_opsjobs.queues.models import Queue
from tests.web import rows

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTHS = (1280, 1440, 360)


def _name(what: str, length: int) -> str:
    """A name without a place to break, whose end tells what it is."""
    return ("reconciliation" * 20)[: length - len(what) - 1] + f"_{what}"


@pytest.fixture(params=[200])
def paths(request: pytest.FixtureRequest, app: Flask, host: Host) -> dict[str, str]:
    """Every page that shows a name, about things that all bear long ones."""
    task, queue, limiter, partition, tag, actor = (
        _name(what, request.param)
        for what in ("task", "queue", "limiter", "partition", "tag", "actor")
    )
    with Session(host.engine, expire_on_commit=False) as session:
        named: dict[str, Any] = {"task": task, "queue": queue, "tags": [tag]}
        jobs = {state: rows.make_job(session, state, **named) for state in STATES}
        rows.make_attempt(
            session,
            jobs["failed"],
            traceback=rows.TRACEBACK,
            worker=_name("worker", request.param),
        )
        rows.make_task_hour(session, task)
        rows.make_limiter(session, limiter)
        held = rows.make_limited(session, partition, "started", limiter=limiter, **named)
        waiting = rows.make_limited(session, partition, limiter=limiter, **named)
        for state in ("alive", "late", "missing", "stopped"):
            found = {
                "host": _name("host", request.param),
                "version": _name("version", request.param),
            }
            rows.make_worker(
                session,
                state,
                name=_name(state, request.param),
                queues=[queue, _name("other", request.param)],
                reserved=[f"{held.id}-1"],
                **found,
            )
        rows.make_loops(session, process=_name("process", request.param))
        rows.make_integrity_check(session, queue=queue)
        facts = {"queue": queue}
        incident = rows.make_incident(
            session, "queue_unserved", subject=f"queue/{queue}", facts=facts
        )
        deploy = rows.make_deploy(
            session, _name("version", request.param), at=rows.ago(minutes=12), actor=actor
        )
        failure = rows.make_counted_failure(
            session,
            [jobs["failed"]],
            deploy,
            type=_name("type", request.param),
            title=f"KeyError: {task}",
            raised_in=f"{task} in {_name('module', request.param)}",
        )
        missing = rows.make_incident(
            session,
            "worker_missing",
            facts={"worker": _name("missing", request.param), "jobs": [jobs["started"].id]},
        )
        rows.make_entry(session, jobs["queued"])
        session.add(
            Queue(name=queue, created_at=rows.ago(days=1), **rows.paused() | {"paused_by": actor})
        )
        target = f"queue/{queue}"
        event = rows.make_event(session, actor=actor, subject=target, targets=(target,))
        step, other = (_name(what, request.param) for what in ("step", "other"))
        flow = {"name": _name("flow", request.param)}
        ended = {"state": "finished", "finished": 2, "settled": 2, "ended_by": "finished"}
        done = {step: jobs["finished"].id, other: jobs["canceled"].id}
        good = rows.make_run(session, done, ended_at=rows.ago(hours=1), **ended, **flow)
        wait = rows.make_job(session, "deferred", task="opsjobs.wait")
        run = rows.make_run(
            session, {step: jobs["failed"].id, "wait": wait.id, other: jobs["deferred"].id}, **flow
        )
        text = {"text": _name("text", request.param)}
        called = {"task": task, "args": text}
        batch = rows.make_batch(
            session, name=_name("batch", request.param), meta=text, on_end=called, on_failure=called
        )
        for state in ("failed", "available"):
            rows.make_job(
                session, state, batch_id=batch.id, args=text, error=f"KeyError: {task}", **named
            )
        rows.make_signal(session, run=run.id, name=_name("signal", request.param), key=step)
        session.commit()
    operator = BulkOperator(host)
    shown = [
        operator.preview(
            "job.retry", [f"job/{jobs[state].id}" for state in states], actor="tester", via="page"
        )
        for states in (["failed"], STATES)
    ]
    resume = operator.preview("queue.resume", [target], actor="tester", via="page")
    draft = operator.draft("job.cancel", JobFilter(queue=queue, task=task, tag=tag), actor=actor)
    operator.cooldown(
        f"{limiter}/{partition}", 30, actor="tester", reason="the vendor asked us to wait"
    )
    return {
        "overview": "",
        "jobs": "/jobs",
        "why jobs wait": "/jobs/why",
        "jobs searched": f"/jobs?queue={queue}&task={task}&tag={tag}",
        **{f"{state} job": f"/jobs/{job.id}" for state, job in jobs.items()},
        "limited job": f"/jobs/{waiting.id}",
        "edited job": f"/edit/jobs/{jobs['available'].id}",
        "raw": f"/jobs/{held.id}/raw",
        "tasks": "/tasks",
        "task": f"/tasks/{task}",
        "queues": "/queues",
        "queue": f"/queues/{queue}",
        "workers": "/workers",
        "cron": "/cron",
        "cron entry": f"/cron/{queue}",
        "limiters": "/limiters",
        "limiter": f"/limiters/{limiter}",
        "simulate": f"/limiters/{limiter}/simulate?live=yes&concurrency=4",
        "lifeline": "/lifeline",
        "incident": f"/lifeline/incidents/{incident.id}",
        "incident of a worker": f"/lifeline/incidents/{missing.id}",
        "failures": "/lifeline/failures",
        "failure": f"/lifeline/failures/{failure.id}",
        "workflows": "/workflows",
        "workflow": f"/workflows/{run.id}",
        "workflow that waits": f"/workflows/{run.id}?step={wait.id}",
        "workflows compared": f"/workflows/{run.id}/compare?with={good.id}",
        "signals": "/signals",
        "batches": "/batches",
        "batch": f"/batches/{batch.id}",
        "draft": f"/operations/{draft.id}",
        "operations": "/operations",
        "doctor": "/doctor",
        "forensics": "/forensics?subject=nothing",
        "forensics of a queue": f"/forensics/queue/{queue}",
        "forensics of a job": f"/forensics/job/{jobs['failed'].id}",
        "forensics of a worker": f"/forensics/worker/{_name('missing', request.param)}",
        "audit": "/audit",
        "audit row": f"/audit?row={event}",
        "decision": f"/audit/{event}",
        "preview": f"/previews/{shown[0].id}",
        "preview of many": f"/previews/{shown[1].id}",
        "preview of a queue": f"/previews/{resume.id}",
        "unknown job": f"/jobs?q={task}x",
        "help": "/help",
    }


def test_nothing_scrolls_sideways_and_no_button_or_name_without_its_title_is_cut(
    page: Any, paths: dict[str, str]
) -> None:
    found = []
    titles: dict[str, list[str]] = {}
    for name, path in paths.items():
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto(f"/ops/jobs{path}")
        titles[name] = page.evaluate(_TITLES_OF_CUT)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                found.append(
                    f"{name} at {width}: {wide - width} px too wide: {page.evaluate(_CULPRIT)}"
                )
            found += [f"{name} at {width}: {cut} is cut" for cut in page.evaluate(_CUT_BUTTONS)]
    assert not found, "\n".join(found)
    assert titles["overview"]
    assert [name for name, cut in titles.items() if "" in cut] == []


def test_a_shortened_name_keeps_its_end_and_has_the_whole_in_its_title(
    page: Any, paths: dict[str, str]
) -> None:
    """Where the middle is left out, and what is scrolled: never more than the panel around a table."""
    page.set_viewport_size({"width": 1440, "height": 800})
    for name in (
        "jobs",
        "queues",
        "workers",
        "cron",
        "limiters",
        "audit",
        "failed job",
        "overview",
        "workflows",
        "workflow",
        "workflows compared",
        "signals",
    ):
        page.goto(f"/ops/jobs{paths[name]}")
        short = page.locator(".rows .short-name").first
        whole, shown = str(short.get_attribute("title")), short.text_content()
        begin, end = shown.split("…")
        assert len(whole) >= 80
        assert whole.startswith(begin)
        assert whole.endswith(end)
        assert page.evaluate(_BELOW_OTHERS) == [], name


def test_tables_fit_in_their_panels_and_the_buttons_of_a_queue_on_a_line(
    page: Any, paths: dict[str, str]
) -> None:
    for name in ("queues", "limiters", "workers", "failures", "cron", "batches", "operations"):
        page.goto(f"/ops/jobs{paths[name]}")
        for width in (1280, 1000):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate(_TOO_WIDE) == [], (name, width)
            hours = page.locator(".rows td[data-label$='last hour']")
            is_shown = name in ("queues", "limiters") and width == 1280
            assert hours.first.is_visible() is is_shown, (name, width)
    page.goto(f"/ops/jobs{paths['queues']}")
    page.set_viewport_size({"width": 1280, "height": 800})
    lines = page.evaluate(_LINES_OF_BUTTONS)
    assert max(map(len, lines)) == 2
    assert all(len(set(tops)) == 1 for tops in lines)


def test_an_example_of_the_overview_shows_more_of_a_name_than_a_letter(
    page: Any, paths: dict[str, str]
) -> None:
    page.set_viewport_size({"width": 1000, "height": 800})
    page.goto(f"/ops/jobs{paths['overview']}")
    widths = page.locator(".ex p").evaluate_all("names => names.map((one) => one.clientWidth)")
    assert len(widths) >= 3
    assert min(widths) >= 80


_TOO_WIDE = """[...document.querySelectorAll(".panel > .rows")]
    .filter((rows) => rows.offsetWidth > rows.parentElement.clientWidth + 1)
    .map((rows) => rows.caption.textContent)"""
_LINES_OF_BUTTONS = """[...document.querySelectorAll(".rows td > .actions")]
    .map((actions) => [...actions.children].map((button) => button.offsetTop))"""
_TITLES_OF_CUT = """[...document.querySelectorAll(".rows .fill, .ex p")]
    .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.title.trim())"""
# Tables that run out of the panel around them, below what stands beside it.
_BELOW_OTHERS = """[...document.querySelectorAll(".panel .rows")]
    .filter((rows) => rows.offsetWidth > rows.parentElement.clientWidth + 1
        && getComputedStyle(rows.parentElement).overflowX !== "auto")
    .map((rows) => rows.caption.textContent)"""


_CUT_BUTTONS = """[...document.querySelectorAll(".panel .rows .btn")]
    .filter((one) => one.getBoundingClientRect().right > one.closest(".panel").getBoundingClientRect().right)
    .map((one) => one.textContent)"""


_CULPRIT = """[...document.querySelectorAll("main *, header *, .prefs *")]
    .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
    .map((one) => `${one.tagName}.${one.className.baseVal ?? one.className}`).slice(0, 4).join(" ")"""
