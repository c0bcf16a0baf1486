"""Every template of ours is drawn by some page, and every page is whole HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob
from sqlalchemy import select
from sqlalchemy.orm import Session

from flask_opsjobs import JobFilter
from flask_opsjobs._folders import folder
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.audit.models import AuditEvent
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.lifeline.detectors import DETECTORS
from flask_opsjobs.lifeline.finding import Detector
from flask_opsjobs.limits.models import LimitRejection
from flask_opsjobs.operations.operator import BulkOperator
from flask_opsjobs.web.app import pages
from tests.support.engine import Bench
from tests.support.graphs import Graph
from tests.support.plain import take_plain
from tests.web.conftest import Drawn
from tests.web.every import reads, soup
from tests.web.rows import ago, make_chain, make_incident, make_job, make_worker

TEMPLATES = sorted(
    path.relative_to(folder("templates")).as_posix() for path in folder("templates").rglob("*.html")
)


@pytest.fixture
def cooling(
    session: Session, host: Host, jobs: dict[str, Job], reference: Callable[..., str]
) -> str:
    """The path of a partition that cools down; its limiter rejected a call."""
    refused = {"partition": "42", "task": "charge", "weight": 2, "code": "limit_tokens"}
    session.add(LimitRejection(at=ago(minutes=3), limiter="customer-api", **refused))
    session.commit()
    Operator(host).cooldown(
        "customer-api/42", 30, actor="tester", reason="the vendor asked us to wait"
    )
    return f"/ops/jobs/limiters/customer-api?partition={reference('42')}"


@pytest.fixture
def step(bench: Bench) -> str:
    """The path of a job that is a step of a workflow."""
    graph = Graph.make(bench.connection, "a b", ["a b"])
    return f"/ops/jobs/jobs/{graph.ids['b']}"


@pytest.fixture
def chained(session: Session) -> str:
    """The path of a plain RQ job that waits for another one."""
    _, child = make_chain(session)
    session.commit()
    return f"/ops/jobs/jobs/{child.id}"


@pytest.fixture
def alone(session: Session) -> str:
    """The path of the workers: one is a plain RQ worker, and a queue has due jobs and none."""
    make_worker(session, kind="plain")
    make_job(session, queue="reports")
    session.commit()
    return "/ops/jobs/workers"


@pytest.fixture
def drafted(host: Host, jobs: dict[str, Job]) -> str:
    """The path of a draft that retries all jobs that failed."""
    draft = BulkOperator(host).draft("job.retry", JobFilter(state="failed"), actor="tester")
    return f"/ops/jobs/operations/{draft.id}"


@pytest.fixture
def in_rq(redis_client: Redis) -> RQJob:
    """A plain RQ job."""
    return Queue(connection=redis_client).enqueue(take_plain)


@pytest.fixture
def repairable(session: Session, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of an incident with an affected job and a repair."""
    loop_failing = replace(DETECTORS["loop_failing"], repairs=("job.rescue",))
    monkeypatch.setitem(cast("dict[str, Detector]", DETECTORS), "loop_failing", loop_failing)
    job = make_job(session, "started")
    incident = make_incident(session, subject="loop/fold", facts={"jobs": [job.id]})
    session.commit()
    return f"/ops/jobs/lifeline/incidents/{incident.id}"


@pytest.mark.slow
def test_every_template_is_drawn_by_some_page(
    client: FlaskClient,
    jobs: dict[str, Job],
    repairable: str,
    alone: str,
    drifted: str,
    cooling: str,
    step: str,
    chained: str,
    drafted: str,
    in_rq: RQJob,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: set[str] = set()
    refusal = session.scalars(select(AuditEvent.sequence).filter_by(code="drifted")).one()
    original = pages._environment().loader.get_source

    def note(environment: Any, name: str) -> Any:
        drawn.add(name)
        return original(environment, name)

    pages._environment().cache.clear()
    monkeypatch.setattr(pages._environment().loader, "get_source", note)
    others = [
        alone,
        drifted,
        f"/ops/jobs/audit/{refusal}",
        cooling,
        step,
        repairable,
        chained,
        drafted,
    ]
    others.append("/ops/jobs/jobs?selected=all")
    others += [
        f"/ops/jobs/rq/0/view/{path}" for path in ("queues", "workers", "jobs", f"job/{in_rq.id}")
    ]
    for path in [*others, *(path for _, path in reads(jobs))]:
        client.get(path)
    # A note that is too short.
    client.post("/ops/jobs/jobs/1/note", headers={"Sec-Fetch-Site": "same-origin"})
    assert drawn == set(TEMPLATES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_template_begins_with_what_it_is(name: str) -> None:
    first = (folder("templates") / name).read_text().splitlines()[0]
    assert first.startswith("{# ")
    assert first.endswith((". #}", ": #}"))


def test_pages_are_whole_and_parts_are_not(drawn: Drawn) -> None:
    for url, path, response, tree in drawn:
        if url.endpoint == "jump":
            continue
        is_document = response.text.startswith("<!doctype html>")
        assert is_document == (url.kind == "page"), path
        ids = [str(element["id"]) for element in tree.select("[id]")]
        assert len(ids) == len(set(ids)), path
        if is_document:
            assert len(tree.select("h1")) == 1
            assert tree.title.text.endswith(" · host (development)")
            assert all(tree.find(id=str(label["for"])) for label in tree.select("label[for]"))
        for table in tree.select("table.rows"):
            assert table.caption.text.strip()
            assert all(header.get("scope") for header in table.select("th"))
        for time in tree.select("time"):
            assert time["datetime"].endswith("Z")


@pytest.mark.slow
def test_what_a_label_or_an_anchor_names_is_there(drawn: Drawn) -> None:
    for url, path, _, tree in drawn:
        if url.kind == "page" and url.endpoint != "jump":
            for name in ("aria-labelledby", "list", "popovertarget", "data-copy"):
                for element in tree.select(f"[{name}]"):
                    for named in str(element[name]).split():
                        assert tree.find(id=named), (path, element)
            for link in tree.select("a[href^='#'], use"):
                assert tree.find(id=str(link["href"])[1:]), (path, link)


@pytest.mark.parametrize(
    ("path", "leads_on"),
    [
        ("/jobs", "send_invoice.enqueue(…)"),
        ("/tasks", "flask opsjobs run"),
        ("/queues", "flask opsjobs worker"),
        ("/workers", "flask opsjobs worker"),
        ("/workflows", "flow.start()"),
        ("/batches", "opsjobs.batch(…)"),
        ("/cron", "flask opsjobs run"),
        ("/limiters", "flask opsjobs worker"),
        ("/lifeline", "flask opsjobs run"),
        ("/lifeline/failures", "flask opsjobs run"),
        ("/operations", "a list of jobs"),
        ("/audit", "flask opsjobs job retry"),
    ],
)
def test_an_empty_list_leads_on(get: Callable[..., Any], path: str, leads_on: str) -> None:
    said = soup(get(path).text).select(".empty :is(code, a)")
    assert leads_on in [one.text for one in said]
