"""What RQ's own view shows, as pages and as rq-dashboard's JSON: to whom, and what of it is never shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job as RQJob
from rq.results import Result
from sqlalchemy.orm import Session

from flask_opsjobs.bridge.repairs import BridgeJob
from flask_opsjobs.core.display import FAILED, NO_PAYLOAD
from flask_opsjobs.jobs.adopted.models import RqFacts
from flask_opsjobs.jobs.models import Job
from tests.bridge.rq_site import HTML, QUEUE, READABLE, RqSite
from tests.support.plain import fail_plain, note_plain
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import make_job

Get = Callable[..., Any]


def _words(text: str) -> str:
    return " ".join(soup(text).main.text.split())


def _list(registry: str, page: str = "8/asc/1", queue: str = QUEUE) -> str:
    return f"/rq/0/view/jobs/{queue}/{registry}/{page}"


def _id_of(row: Any) -> str:
    """The id of a job in a list, which its text may shorten."""
    return str(row.select_one("a.id")["href"]).rpartition("/")[2]


def test_no_pickle_is_run_and_what_cannot_be_read_hides_nothing_else(
    get: Get, in_rq: RqSite
) -> None:
    shown = ""
    for registry in ("queued", "started", "finished", "failed", "deferred", "canceled"):
        shown += get(_list(registry)).text
        shown += get(f"/rq/0/data/jobs/{QUEUE}/{registry}/8/asc/1.json").text
    for rq_id in in_rq.ids.values():
        assert shown.count(rq_id) >= 2
    assert "RQ&#39;s record of this job cannot be read" in shown or "has no record" in shown
    for name, rq_id in in_rq.ids.items():
        status = 200 if name in READABLE else 404
        get(f"/rq/0/view/job/{rq_id}", status)
        get(f"/rq/0/data/job/{rq_id}.json", status)
    assert "runs-legacy" in get("/rq/0/view/workers").text
    (worker,) = get("/rq/0/data/workers.json").json["workers"]
    assert worker["current_job"]["job_id"] == in_rq.ids["started"]
    assert worker["current_job"]["call_string"].startswith("tests.support.plain.note_plain(")
    assert not in_rq.trap.exists()
    # RQ itself runs it.
    RQJob.fetch(in_rq.ids["poisoned"], connection=in_rq.redis)
    assert in_rq.trap.exists()


def test_a_worker_whose_job_is_gone_is_shown(get: Get, in_rq: RqSite) -> None:
    in_rq.redis.delete(RQJob.key_for(in_rq.ids["started"]))
    says = "[not shown: RQ has no record of this job]"
    (worker,) = get("/rq/0/data/workers.json").json["workers"]
    assert worker["current_job"]["description"] == worker["current_job"]["call_string"] == says
    text = get("/rq/0/view/workers").text
    assert in_rq.ids["started"] in text
    assert says in text


def test_a_job_that_cannot_be_read_says_so_in_its_row(
    get: Get, in_rq: RqSite, access: Access
) -> None:
    line = Queue(QUEUE, connection=in_rq.redis)
    no_hash, no_data = (line.enqueue(note_plain, "x").id for _ in range(2))
    in_rq.redis.set(RQJob.key_for(no_hash), "x")
    in_rq.redis.hdel(RQJob.key_for(no_data), "data")
    damaged = [in_rq.ids["unreadable"], no_hash, no_data]
    wanted = {
        **dict.fromkeys(damaged, "RQ's record of this job cannot be read"),
        in_rq.ids["lost"]: "RQ has no record of this job",
    }
    for held in (True, False):
        if not held:
            access.held.remove("payload.view")
        rows = {
            _id_of(row): row
            for row in soup(get(_list("queued", "25/asc/1")).text).select("tbody tr")
        }
        assert {*wanted, in_rq.ids["queued"]} <= {*rows}
        for rq_id, says in wanted.items():
            assert rows[rq_id].select_one("[data-label=function]").text.strip() == says
    for rq_id in damaged:
        get(f"/rq/0/view/job/{rq_id}", 404)


def test_a_row_shows_the_function_and_a_description_of_one_s_own(get: Get, in_rq: RqSite) -> None:
    cells = {
        _id_of(row): row.select_one("[data-label=function]")
        for row in soup(get(_list("queued")).text).select("tbody tr")
    }
    own, described = cells[in_rq.ids["queued"]], cells[in_rq.ids["poisoned"]]
    assert own.text.strip() == "tests.support.plain.note_plain"
    assert described.select_one(".mono").text == "tests.support.plain.note_plain"
    assert described.select_one(".mute").text == HTML
    running = soup(get("/rq/0/view/workers").text).select_one("[data-label=runs]")
    assert "tests.support.plain.note_plain" in running.text
    assert HTML in running.text


# RQ 3 makes no such ids, but earlier versions do.
ODD = ("a/b", "a//b", "a/b.json", "50%", "a%2Fb", "who?x=1", "a#b", "grün ✓", "a b", "a:b", "a&b+c")


@pytest.mark.slow
def test_a_job_is_reached_by_its_link_whatever_its_id(
    get: Get, in_rq: RqSite, session: Session
) -> None:
    redis, line = in_rq.redis, Queue("odd", connection=in_rq.redis)
    stored = RQJob.key_for(in_rq.ids["deferred"])
    for rq_id in ODD:
        redis.copy(stored, RQJob.key_for(rq_id))
        redis.rpush(line.key, rq_id)
        redis.sadd(BridgeJob(rq_id, redis).dependencies_key, "a/b")
    listed = soup(get(_list("queued", "25/asc/1", "odd")).text).select("th a.id")
    assert [link.text for link in listed] == [*ODD]
    for rq_id, link in zip(ODD, listed, strict=True):
        tree = soup(get(link["href"].removeprefix("/ops/jobs")).text)
        assert tree.h2.text == rq_id
        (data,) = [each for each in tree.select("a") if each.text == "JSON"]
        assert get(data["href"].removeprefix("/ops/jobs")).json["id"] == rq_id
        assert tree.select_one("dd a.id")["href"] == "/ops/jobs/rq/0/view/job/a/b"
        job = _adopt(session, rq_id, "deferred")
        for path in (f"/jobs/{job.id}", f"/forensics/job/{job.id}"):
            assert soup(get(path).text).find("a", href=link["href"]), path


def test_payload_needs_its_permission(get: Get, in_rq: RqSite, access: Access) -> None:
    rq_id = in_rq.ids["deferred"]
    with_payload = get(f"/rq/0/data/job/{rq_id}.json").json
    assert with_payload["description"] == HTML
    assert json.loads(with_payload["metadata"])["token"] == "s3cr3t"
    assert (with_payload["depends_on"], with_payload["depends_on_status"]) == (
        [in_rq.ids["failed"]],
        ["active"],
    )
    access.held.remove("payload.view")
    without = get(f"/rq/0/data/job/{rq_id}.json").json
    assert {without[key] for key in ("description", "metadata")} == {NO_PAYLOAD}
    paths = [f"/rq/0/view/job/{one}" for name, one in in_rq.ids.items() if name in READABLE]
    paths += [_list(each) for each in ("queued", "started", "failed")]
    paths += ["/rq/0/view/workers", "/rq/0/data/workers.json"]
    for path in paths:
        text = get(path).text
        for secret in ("onerror", "s3cr3t", "note_plain", "on purpose", "Traceback (most"):
            assert secret not in text, path


def test_payload_of_a_job_that_the_policy_hides_is_hidden_here_too(
    get: Get, in_rq: RqSite, access: Access, session: Session
) -> None:
    rq_id = in_rq.ids["queued"]
    job = make_job(session, "deferred", origin="rq", rq_id=rq_id)
    session.commit()
    access.denied.add(("payload.view", f"job/{job.id}"))
    assert get(f"/rq/0/data/job/{rq_id}.json").json["description"] == NO_PAYLOAD
    assert "note_plain" not in get(f"/rq/0/view/job/{rq_id}").text


class _Hides:
    def is_hidden_key(self, key: str) -> bool:
        return key == "token"

    def clean_text(self, text: str) -> str:
        return text.replace("onerror", "[hidden]")


class _Raises:
    def is_hidden_key(self, key: str) -> bool:
        raise RuntimeError(key)

    def clean_text(self, text: str) -> str:
        raise RuntimeError(text)


@pytest.mark.parametrize(
    ("policy", "mark"), [(_Hides(), "[hidden: key token]"), (_Raises(), FAILED)]
)
def test_everything_passes_the_display_policy(
    policy: Any, mark: str, make_app: Callable[..., Flask], in_rq: RqSite
) -> None:
    client = make_app(display=policy).test_client()
    rq_id = in_rq.ids["deferred"]
    for path in (f"view/job/{rq_id}", f"data/job/{rq_id}.json"):
        answer = client.get(f"/ops/jobs/rq/0/{path}")
        assert answer.status_code == 200
        assert mark in answer.text
        assert "s3cr3t" not in answer.text
        assert "onerror" not in answer.text
    for path in ("view/workers", f"view/jobs/{QUEUE}/failed/8/asc/1", "data/workers.json"):
        answer = client.get(f"/ops/jobs/rq/0/{path}")
        assert answer.status_code == 200
        assert "onerror" not in answer.text


def test_a_page_of_a_registry_is_exact_in_both_orders(get: Get, redis_client: Redis) -> None:
    line = Queue("a/b", connection=redis_client)
    ids = [line.enqueue(note_plain, str(number)).id for number in range(7)]

    def seen(page: int, order: str) -> list[str]:
        found = get(f"/rq/0/data/jobs/a/b/queued/3/{order}/{page}.json").json
        assert found["pagination"]["num_pages"] == 3
        return [job["id"] for job in found["jobs"]]

    assert [seen(page, "asc") for page in (1, 2, 3, 4)] == [ids[:3], ids[3:6], ids[6:], []]
    backwards = ids[::-1]
    assert [seen(page, "dsc") for page in (1, 2, 3, 4)] == [
        backwards[:3],
        backwards[3:6],
        backwards[6:],
        [],
    ]
    text = get(_list("queued", "3/asc/2", "a/b")).text
    assert "page 2 of 3, 7 jobs" in _words(text)
    links = {link.text: str(link["href"]) for link in soup(text).select("footer a")}
    assert links == {
        "Before": "/ops/jobs/rq/0/view/jobs/a/b/queued/3/asc/1",
        "Next": "/ops/jobs/rq/0/view/jobs/a/b/queued/3/asc/3",
    }
    # At most 200 are read at once, however many are asked for.
    assert "page 1 of 1" in _words(get(_list("queued", "999999/asc/1", "a/b")).text)
    get(_list("queued", "3/asc/99999999999999999999", "a/b"))


def test_a_middle_page_of_a_long_registry_comes_within_100_ms(
    get: Get, redis_client: Redis, pytestconfig: pytest.Config
) -> None:
    number = pytestconfig.getoption("bridge_jobs")
    line = Queue("long", connection=redis_client)
    failed = line.enqueue(fail_plain, "x" * 100)
    SimpleWorker([line], connection=redis_client).work(burst=True, logging_level="CRITICAL")
    registry = line.failed_job_registry
    for start in range(0, number, 10_000):
        scores = {f"job-{each:07}": each for each in range(start, min(start + 10_000, number))}
        redis_client.zadd(registry.key, scores)
    middle = number // 2 // 50 + 1
    for each in range((middle - 1) * 50, middle * 50):
        redis_client.copy(failed.key, RQJob.key_for(f"job-{each:07}"))
        redis_client.copy(Result.get_key(failed.id), Result.get_key(f"job-{each:07}"))

    # On a busy machine only its own work counts, and the round trips do not depend on the number of jobs.
    is_large = number >= 100_000
    clock = time.perf_counter if is_large else time.thread_time

    def seconds() -> float:
        began = clock()
        text = get(_list("failed", f"50/asc/{middle}", "long")).text
        taken = clock() - began
        assert f"job-{(middle - 1) * 50:07}" in text
        assert text.count("tests.support.plain.fail_plain") == 50
        return taken

    seconds()  # loads what the first page loads
    times = sorted(seconds() for _ in range(20))
    p50, p95 = times[9], times[18]
    print(f"a middle page of {number:,} jobs: p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms")
    assert (p95 if is_large else times[0]) < 0.1


def test_what_is_not_there_says_so(get: Get, in_rq: RqSite) -> None:
    assert "no registry 'nonsense'" in _words(get(_list("nonsense"), 404).text)
    assert "has no job 'nobody'" in _words(get("/rq/0/view/job/nobody", 404).text)
    assert get("/rq/0/data/job/nobody.json", 404).json == {
        "error": "RQ on default has no job 'nobody'."
    }
    assert "no Redis with the number 7" in _words(get("/rq/7/", 404).text)
    assert "Inspection only" in get(f"/rq/requeue/{QUEUE}", 403).text
    get("/rq/static/js/app.js", 404)
    get(f"/rq/0/data/jobs/{QUEUE}/queued/x/asc/1.json", 404)
    get(f"/rq/0/data/jobs/{QUEUE}/queued/{'9' * 5000}/asc/1.json", 404)
    get(f"/rq/0/view/jobs/{QUEUE}/queued/25/sideways/1", 404)
    get("/rq/0/view/job/%00", 404)
    get("/rq/0/data/job/%00.json", 404)


def test_every_error_of_a_json_address_is_json(get: Get, in_rq: RqSite) -> None:
    """Permissions, methods, unknown jobs and a Redis that is away are in the other tests."""
    rows = f"jobs/{QUEUE}/queued/8/asc/1"
    for path in ("queues", "workers", rows, f"job/{in_rq.ids['queued']}"):
        address = f"/rq/0/data/{path}.json"
        answers = [
            get(address, 403, headers={"Sec-Fetch-Site": "cross-site"}),
            get(f"{address}?{'x' * 5000}", 414),
            get(address.replace("/0/", "/7/"), 404),
        ]
        for answer in answers:
            assert answer.mimetype == "application/json"
            assert [*answer.json] == ["error"]
    assert (
        "no registry 'nonsense'"
        in get(f"/rq/0/data/{rows.replace('queued', 'nonsense')}.json", 404).json["error"]
    )
    assert get("/rq/0/data/nothing.json", 404).json == {
        "error": "There is nothing at this address."
    }
    # A page whose address has the word too.
    assert get("/rq/0/view/job/data", 404).mimetype == "text/html"


def test_a_delivery_and_its_job_link_to_each_other(
    get: Get, session: Session, redis_client: Redis, access: Access
) -> None:
    line = Queue("default", connection=redis_client)
    job = make_job(session, "queued", dispatch_no=1)
    gone = line.enqueue(note_plain, "x", job_id="opsjobs-999999-1")
    session.commit()
    line.enqueue(note_plain, "x", job_id=f"opsjobs-{job.id}-1")
    there = f"/ops/jobs/rq/0/view/job/opsjobs-{job.id}-1"
    assert soup(get(f"/jobs/{job.id}").text).find("a", href=there)
    assert soup(get(there.removeprefix("/ops/jobs")).text).find(
        "a", href=f"/ops/jobs/jobs/{job.id}"
    )
    listed = soup(get(_list("queued", queue="default")).text)
    assert listed.find("a", href=f"/ops/jobs/jobs/{job.id}")
    assert not listed.find("a", href="/ops/jobs/jobs/999999"), gone
    bundle = soup(get(f"/forensics/job/{job.id}").text)
    assert bundle.find("a", href=there)
    access.held.remove("bridge.view")
    assert not soup(get(f"/jobs/{job.id}").text).find("a", href=there)
    assert "it needs bridge.view" in _words(get(f"/forensics/job/{job.id}").text)


def _adopt(session: Session, rq_id: str, state: str) -> Job:
    """The row of a plain RQ job."""
    job = make_job(session, state, origin="rq", rq_id=rq_id, rq_status=state)
    facts = {"structure": state, "created_source": "rq", "changed_at": datetime.now(UTC)}
    session.add(RqFacts(job_id=job.id, depends_on=[], **facts))
    session.commit()
    return job


def test_an_adopted_job_and_its_page_link_to_each_other(
    get: Get, session: Session, in_rq: RqSite
) -> None:
    rq_id = in_rq.ids["failed"]
    job = _adopt(session, rq_id, "failed")
    there = f"/ops/jobs/rq/0/view/job/{rq_id}"
    assert soup(get(f"/jobs/{job.id}").text).find("a", href=there)
    assert soup(get(there.removeprefix("/ops/jobs")).text).find(
        "a", href=f"/ops/jobs/jobs/{job.id}"
    )


def test_the_overview_leads_to_it(get: Get, in_rq: RqSite, access: Access) -> None:
    (card,) = [one for one in soup(get().text).select("article") if "Bridge-only" in one.h3.text]
    assert card.select_one("a.go")["href"] == "/ops/jobs/rq"
    access.held.remove("bridge.view")
    assert "/ops/jobs/rq" not in get().text
