"""The panel on a job's page: the reasons in order, each with its action, through the host's policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bs4 import Tag
from flask import Flask
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy
from redis import Redis

from flask_opsjobs import Limit, OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.explain.conftest import wake_loops
from tests.support.engine import Bench
from tests.web.conftest import Access
from tests.web.every import soup

RecordJob = Callable[..., int]
REASON = "vendor <img src=x> token=hunter2 & hold"


class Hides:
    """Hides what follows `token=`; raises when told."""

    def __init__(self) -> None:
        self.raises = False

    def is_hidden_key(self, key: str) -> bool:
        return False

    def clean_text(self, text: str) -> str:
        if self.raises:
            raise RuntimeError("no")
        return text.replace("hunter2", "[hidden]")


@pytest.fixture
def access() -> Access:
    return Access()


@pytest.fixture
def display() -> Hides:
    return Hides()


@pytest.fixture
def app(make_app: Callable[..., Flask], opsjobs: OpsJobs, access: Access, display: Hides) -> Flask:
    return make_app(opsjobs=opsjobs, access=access, display=display)


def panel(client: FlaskClient, bench: Bench, job_id: int) -> Tag | None:
    wake_loops(bench, read_clock(bench.connection))
    response = client.get(f"/ops/jobs/jobs/{job_id}")
    assert response.status_code == 200, response.text
    return soup(response.text).select_one("section[aria-labelledby=why]")


def words(tag: Any) -> str:
    return " ".join(tag.text.split())


@pytest.fixture
def paused(bench: Bench, record_job: RecordJob) -> int:
    job_id = record_job(delay=60)
    Operator(bench.host).pause("default", actor="ops-demo", reason=REASON)
    return job_id


def test_reasons_stand_in_order_with_code_evidence_and_source(
    client: FlaskClient, bench: Bench, paused: int
) -> None:
    found = panel(client, bench, paused)
    assert found is not None
    assert "2 reasons, the first one decides" in words(found)
    first, second = found.select("ol.why > li")
    assert words(first).startswith("1 It is due later. Until ")
    assert first.select_one(".read code").text == "scheduled"
    assert "reported by the host" in words(first)
    assert first.select_one("button") is None
    assert (first["data-is"], second["data-is"]) == ("waiting", "blocked")
    assert "The queue default is paused" in words(second)


def test_what_a_person_wrote_is_escaped_and_passes_the_display_policy(
    client: FlaskClient, bench: Bench, paused: int, display: Hides
) -> None:
    found = panel(client, bench, paused)
    assert found is not None
    assert "ops-demo: “vendor <img src=x> token=[hidden] & hold”" in words(found)
    assert found.select_one("img") is None
    assert "hunter2" not in str(found)
    display.raises = True
    found = panel(client, bench, paused)
    assert found is not None
    assert "[hidden: display policy failed]" in words(found)
    assert "vendor" not in words(found)


def test_the_action_that_helps_is_a_button_that_leads_to_its_preview(
    client: FlaskClient, bench: Bench, paused: int, access: Access
) -> None:
    found = panel(client, bench, paused)
    assert found is not None
    (button,) = found.select("button")
    assert button.text == "Resume…"
    answer = client.post(button["formaction"], headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 303
    assert "/previews/" in answer.location
    access.held.discard("queue.resume")
    found = panel(client, bench, paused)
    assert found is not None
    (button,) = found.select("button")
    assert "disabled" in button.attrs
    assert "needs queue.resume" in words(button)
    assert ("queue.resume", "queue/default") in access.asked


def test_a_partition_is_named_only_to_those_who_may_see_it(
    client: FlaskClient, bench: Bench, opsjobs: OpsJobs, db: SQLAlchemy, access: Access
) -> None:
    limit = Limit("api", concurrency=1, partition="account")

    @opsjobs.task(limit=limit)
    def call(account: str) -> None: ...

    declare_limiters(bench.host, "test")
    job_id = call.enqueue(account="acme-4711").id
    db.session.commit()
    who: dict[str, Any] = {"actor": "ops-demo", "reason": "the vendor asked us to hold"}
    Operator(bench.host).run(
        "limiter.cooldown", ["limiter/api/acme-4711"], params={"minutes": 5}, **who
    )
    paths = [f"/ops/jobs/jobs/{job_id}{rest}" for rest in ("", "/raw")]

    def named() -> list[bool]:
        return ["acme-4711" in client.get(path).text for path in paths]

    assert named() == [True, True]
    access.held.discard("limiters.view")
    assert named() == [True, True], "it is one of the arguments, which payload.view shows"
    access.held.discard("payload.view")
    assert named() == [False, False]
    found = panel(client, bench, job_id)
    assert found is not None
    assert "The limiter api is in a cooldown" in words(found)
    assert found.select("button") == []
    access.held.add("limiters.view")
    assert named() == [True, True]


def test_a_place_to_look_is_linked_for_those_who_may_go_there(
    client: FlaskClient, bench: Bench, record_job: RecordJob, access: Access
) -> None:
    job_id = record_job(queue="mail")
    found = panel(client, bench, job_id)
    assert found is not None
    (link,) = found.select("a")
    assert client.get(link["href"]).status_code == 200
    access.held.discard("queues.view")
    found = panel(client, bench, job_id)
    assert found is not None
    assert found.select("a") == []


def test_a_full_prefetch_links_to_where_a_number_can_be_given(
    client: FlaskClient, bench: Bench, record_job: RecordJob
) -> None:
    _, job_id = record_job(), record_job()
    bench.dispatch(prefetch=1)
    Operator(bench.host).set_prefetch("default", 1, actor="ops-demo", reason="a low prefetch")
    found = panel(client, bench, job_id)
    assert found is not None
    assert found.select("button") == []
    assert found.select_one("a").text == "Its prefetch"


def test_a_job_about_to_run_says_so_and_what_was_checked(
    client: FlaskClient, bench: Bench, record_job: RecordJob
) -> None:
    found = panel(client, bench, record_job())
    assert found is not None
    assert "Nothing blocks it" in words(found)
    checked = [words(item) for item in found.select(".ok li")]
    assert {"due", "queue not paused", "Redis answers"} <= set(checked)


def test_a_running_and_an_ended_job_have_no_panel(
    client: FlaskClient, bench: Bench, record_job: RecordJob, redis_client: Redis
) -> None:
    job_id = record_job()
    bench.dispatch()
    bench.claim(job_id)
    assert panel(client, bench, job_id) is None
    Operator(bench.host).cancel(job_id, actor="ops-demo", reason="no longer needed")
    found = panel(client, bench, job_id)
    assert found is not None
    assert "ops-demo: “no longer needed”" in words(found)
    bench.record(job_id, 1, Outcome(kind="returned"))
    assert panel(client, bench, job_id) is None


@pytest.mark.parametrize("state", ["available", "queued"])
def test_a_page_says_when_redis_is_away(
    make_app: Callable[..., Flask],
    database_url: str,
    bench: Bench,
    record_job: RecordJob,
    state: str,
) -> None:
    job_id = record_job()
    if state == "queued":
        bench.dispatch()
    # A worker of ours takes what is due from Postgres.
    bench.connection.execute("UPDATE opsjobs.workers SET kind = 'plain'")
    away = make_app(OPSJOBS_REDIS_URL="redis://127.0.0.1:1/0")
    found = panel(away.test_client(), bench, job_id)
    assert found is not None
    assert found.select_one(".read code").text == "redis_away"
    assert "partial evidence" in words(found)
