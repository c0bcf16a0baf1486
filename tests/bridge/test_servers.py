"""Several Redis servers, one that is away, and a host that serves rq-dashboard itself or has none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import rq.job
import rq_dashboard
import rq_dashboard.web
from flask import Flask
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job as RQJob

from flask_opsjobs.bridge import status
from flask_opsjobs.bridge.allowed import VIEWS
from flask_opsjobs.bridge.status import find_status
from flask_opsjobs.doctor.check import CheckAnswer
from flask_opsjobs.doctor.examination import examine
from tests.support.plain import fail_plain, note_plain
from tests.web.every import soup

MakeApp = Callable[..., Flask]
pytestmark = pytest.mark.usefixtures("database_url")
AWAY = "redis://me:hunter2@127.0.0.1:1/0"


def ask_doctor(app: Flask, check: str) -> CheckAnswer:
    """What one check of the doctor answers."""
    (result,) = examine(app, only=[check]).results
    return result.answer


@pytest.fixture
def second_url(redis_url: str) -> Iterator[str]:
    """The URL of another, empty database of Redis."""
    url = f"{redis_url.rstrip('/').removesuffix('/0')}/1"
    with Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


def test_two_threads_on_two_redis_see_each_its_own(
    make_app: MakeApp, redis_url: str, second_url: str
) -> None:
    for name, url in (("first", redis_url), ("second", second_url)):
        with Redis.from_url(url) as client:
            Queue(name, connection=client).enqueue(note_plain, "x")
    app = make_app(OPSJOBS_RQ_REDIS_URLS={"reports": second_url})
    assert ask_doctor(app, "bridge.redis").sentence == "Redis answers the bridge: default, reports."
    seen: dict[int, list[str]] = {0: [], 1: []}

    def look(number: int) -> None:
        client = app.test_client()
        for _ in range(100):
            found = client.get(f"/ops/jobs/rq/{number}/data/queues.json").json
            seen[number].append(found["queues"][0]["name"])
            assert len(found["queues"]) == 1

    threads = [threading.Thread(target=look, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {0: ["first"] * 100, 1: ["second"] * 100}
    servers = soup(app.test_client().get("/ops/jobs/rq/1/").text).select(
        "nav[aria-label='Redis server'] a"
    )
    assert [(one.text, one["href"]) for one in servers] == [
        ("default", "/ops/jobs/rq/0"),
        ("reports", "/ops/jobs/rq/1"),
    ]


def test_a_redis_that_is_away_is_said_within_a_second_and_without_its_password(
    make_app: MakeApp, redis_waits: list[float]
) -> None:
    app = make_app(OPSJOBS_RQ_REDIS_URLS={"reports": AWAY})
    client = app.test_client()
    client.get("/ops/jobs/rq")
    data = ("queues", "workers", "jobs/mail/failed/25/asc/1", "job/x")
    assert len(data) == len(VIEWS)
    paths = ["", "view/workers", "view/jobs", "view/job/x", *(f"data/{each}.json" for each in data)]
    for path in paths:
        redis_waits.clear()
        answer = client.get(f"/ops/jobs/rq/1/{path}")
        assert redis_waits in ([], [0.2])
        assert answer.status_code == 503
        if path.startswith("data/"):
            assert answer.json == {"error": "Redis reports does not answer."}
        else:
            said = "What RQ has in Redis reports at 127.0.0.1:1/0 is not known until it answers."
            assert said in " ".join(soup(answer.text).main.text.split())
        assert "hunter2" not in answer.text
    assert client.get("/ops/jobs/rq/0/").status_code == 200
    found = ask_doctor(app, "bridge.redis")
    assert found.state == "warning"
    assert found.evidence.startswith("reports at 127.0.0.1:1/0: ConnectionError. ")


def test_a_redis_that_is_among_the_sources_is_said_to_be_away_once(make_app: MakeApp) -> None:
    main = soup(make_app(OPSJOBS_REDIS_URL=AWAY).test_client().get("/ops/jobs/rq").text).main
    assert main.text.count("does not answer") == 1
    assert "Redis does not answer." in main.select_one("#sources").text
    assert "is not known until it" in main.select_one(".say").text


def test_a_host_that_serves_rq_dashboard_itself_keeps_it_as_it_was(
    make_app: MakeApp, redis_client: Redis, redis_url: str
) -> None:
    app = make_app(RQ_DASHBOARD_REDIS_URL=redis_url)
    assert ask_doctor(app, "bridge.host_mount").state == "ok"
    rq_dashboard.web.setup_rq_connection(app)
    app.register_blueprint(rq_dashboard.blueprint, url_prefix="/rq")
    client = app.test_client()
    line = Queue("legacy", connection=redis_client)
    job = line.enqueue(fail_plain)
    SimpleWorker([line], connection=redis_client).work(burst=True, logging_level="CRITICAL")
    assert client.get(f"/ops/jobs/rq/0/data/job/{job.id}.json").json["status"] == "failed"
    assert rq_dashboard.web.Job is rq.job.Job
    assert client.get(f"/rq/0/data/job/{job.id}.json").json["status"] == "failed"
    assert "<script" in client.get("/rq/").text
    assert client.post(f"/ops/jobs/rq/job/{job.id}/requeue").status_code == 403
    assert client.post(f"/rq/job/{job.id}/requeue").json == {"status": "OK"}
    assert RQJob.fetch(job.id, connection=redis_client).get_status() == "queued"
    assert client.get("/rq/requeue/legacy").json["status"] == "OK"
    found = ask_doctor(app, "bridge.host_mount")
    assert found.state == "warning"
    assert "/rq/requeue/<queue_name>" in found.evidence
    app.redis_conn.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("installed", "word", "says"),
    [
        ({"rq-dashboard": "0.9.3"}, "mounted", "reads with rq-dashboard 0.9.3"),
        ({"rq-dashboard": "0.10.0"}, "other", "0.10.0 is installed"),
        ({"rq-dashboard": "0.8.6"}, "other", "0.8.6 is installed"),
        ({"rq-dashboard-fast": "0.6.0"}, "other", "rq-dashboard-fast, which is ASGI"),
        ({}, "missing", "is not installed"),
    ],
)
def test_what_is_installed_decides(
    installed: dict[str, str],
    word: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    make_app: MakeApp,
) -> None:
    monkeypatch.setattr(status, "_find_version", installed.get)
    found = find_status("auto")
    assert (found.word, says in found.says) == (word, True)
    assert find_status("off").word == "off"
    app = make_app()
    answers = {path: app.test_client().get(f"/ops/jobs{path}") for path in ("/rq", "/help")}
    assert answers["/rq"].status_code == (200 if word == "mounted" else 404)
    assert found.says in soup(answers["/help"].text).main.text
    entries = [link.text for link in soup(answers["/help"].text).select("nav.side a")]
    assert ("RQ" in entries) == (word == "mounted")
    checked = ask_doctor(app, "bridge.version")
    states = {"mounted": "ok", "other": "warning", "missing": "skipped"}
    assert (checked.state, checked.sentence) == (states[word], found.says)


def test_it_can_be_switched_off(make_app: MakeApp) -> None:
    app = make_app(OPSJOBS_BRIDGE="off")
    client = app.test_client()
    assert client.get("/ops/jobs/rq").status_code == 404
    assert "OPSJOBS_BRIDGE is &#39;off&#39;" in client.get("/ops/jobs/help").text
    assert [name for name in app.blueprints if "bridge" in name] == []
    assert ask_doctor(app, "bridge.redis").state == "skipped"
    (card,) = [
        one
        for one in soup(client.get("/ops/jobs").text).select("article")
        if "Bridge" in one.h3.text
    ]
    assert "rq" not in str(card.select_one("a.go")["href"]).split("/")
