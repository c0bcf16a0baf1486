"""The workers' page: who lives, what each is running and who may stop it, who is gone and what it left."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from flask_opsjobs.jobs.models import Job
from flask_opsjobs.queues.models import Queue
from flask_opsjobs.testing.valkey import Valkey
from flask_opsjobs.workers.models import Worker
from flask_opsjobs.workers.pool_report import ChildReport, PoolReport
from flask_opsjobs.workers.queries import list_reserved, list_workers
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import ago, make_attempt, make_deploy, make_job, make_loops, make_worker
from tests.web.rows import paused as is_paused

Get = Callable[..., Any]


def _part(get: Get) -> Any:
    return soup(get("/workers").text).find(id="part")


def _say(get: Get) -> str:
    return " ".join(_part(get).select_one(".say").text.split())


@pytest.fixture
def running(session: Session) -> Job:
    """A job in the hands of the worker web-1:7."""
    job = make_job(session, "started")
    worker = make_worker(
        session, name="web-1:7", pid=7, queues=["mail", "crm"], reserved=[f"{job.id}-1"]
    )
    job.worker_id = worker.id
    make_attempt(session, job, None, started_at=job.started_at, pid=2211)
    session.commit()
    return job


POOL = PoolReport(
    children=[
        ChildReport(2211, jobs=804, rss_kb=97_000, job_id=1, task="send_invoice", seconds=4.0),
        ChildReport(2212, jobs=31, rss_kb=86_000, job_id=999, task="add_line", seconds=0.01),
        ChildReport(2213, jobs=9, rq_id="legacy-9", seconds=12.0),
        ChildReport(2214, jobs=12),
        ChildReport(2215, is_ready=False),
        ChildReport(2216, seconds=0.2),
    ],
    jobs_per_second=41.3,
    from_postgres=41.0,
    through_rq=0.2,
    reserved=6,
)
LEFT: list[dict[str, Any]] = [
    {
        "task": "import_row",
        "kind": "thread",
        "sentence": "left 3 threads behind: a, b, c",
        "count": 41,
        "at": "2026-11-25T13:50:00+00:00",
    },
    {
        "task": None,
        "kind": "jobs",
        "sentence": "has performed 1,000 jobs",
        "count": 2,
        "at": "2026-11-25T13:58:00+00:00",
    },
]


def test_nobody_there(get: Get) -> None:
    assert _say(get).startswith("No worker is alive.")
    assert "flask opsjobs worker" in _say(get)


def test_all_are_well(get: Get, session: Session, running: Job) -> None:
    make_loops(session)
    session.commit()
    assert _say(get) == "1 worker alive, none late, none missing."


def test_nobody_looks_for_missing_workers(get: Get, running: Job) -> None:
    assert _say(get).startswith("Nobody looks for missing workers: the loop watch does not run.")
    assert "1 worker alive, by its last heartbeat" in _say(get)


def test_one_is_late(get: Get, session: Session, running: Job) -> None:
    make_worker(session, "late")
    session.commit()
    assert _say(get).startswith("1 of 2 workers is late.")
    states = [row.select_one("td.end").text.strip() for row in _rows(get, "ours")]
    assert states == ["late", "alive"]


def _rows(get: Get, section: str) -> list[Any]:
    """The rows of workers, without those of their children and notes."""
    found: list[Any] = _part(get).select(f"[aria-labelledby={section}] tbody tr:not([class])")
    return found


def _children(get: Get) -> list[Any]:
    found: list[Any] = _part(get).select("tr.child")
    return found


def _words(row: Any) -> str:
    return " ".join(row.text.split())


def test_a_live_one_in_full(get: Get, running: Job) -> None:
    (row,) = _rows(get, "ours")
    words = _words(row)
    for piece in ("web-1:7", "web-1, pid 7, 2026.11.3, up since", "mail, crm", "86.0 MB"):
        assert piece in words
    # A narrow page has no head of the table: each cell but the name and the state says what it is.
    assert [cell.get("data-label") for cell in row.select("td")] == [
        None,
        "queues",
        "jobs a second",
        "taken",
        "reserved",
        "memory",
        "heartbeat",
        None,
    ]
    assert row.select_one("button").text == "Drain…"
    (child,) = _children(get)
    assert _words(child).startswith(f"2211 runs {running.id} send_invoice since ")
    (since,) = child.select("time")
    assert since["datetime"] == f"{running.started_at:%Y-%m-%dT%H:%M:%SZ}"
    assert since["data-as"] == "age"
    button = child.select_one("button")
    assert button.text == "Stop job…"
    assert button["formaction"] == f"/ops/jobs/jobs/{running.id}/cancel"


def test_what_each_child_does(get: Get, session: Session, running: Job) -> None:
    worker = session.get_one(Worker, running.worker_id)
    worker.pool = POOL.to_json()
    younger = make_job(session, "started", worker_id=worker.id)
    make_attempt(session, younger, None, pid=2220)
    session.commit()
    (row,) = _rows(get, "ours")
    assert [_words(cell) for cell in row.select("td.n")[:3]] == [
        "41",
        "41 Postgres, 0.2 RQ",
        "6",
    ]
    rows = [_words(child) for child in _children(get)]
    assert rows[0].startswith(f"2211 runs {running.id} send_invoice 804 done 99.3 MB since ")
    # Its attempt is not written: the job was running for 10 ms when the heartbeat was made.
    assert rows[1] == "2212 busy add_line at its last heartbeat 31 done 88.1 MB"
    assert rows[2] == "2213 runs plain RQ job legacy-9 9 done"
    assert rows[3] == "2214 idle 12 done"
    assert rows[4] == "2215 starts 0 done"
    assert rows[5] == "2216 busy RQ's maintenance 0 done"
    assert rows[6].startswith(f"2220 runs {younger.id} send_invoice since ")
    assert len(rows) == 7


def test_why_children_left(get: Get, session: Session, running: Job) -> None:
    worker = session.get_one(Worker, running.worker_id)
    worker.left_children = LEFT
    session.commit()
    last, often = (_words(row) for row in _part(get).select("tr.note"))
    assert last.startswith("The last child left ")
    assert last.endswith(": it has performed 1,000 jobs.")
    assert often == (
        "41 children left today after import_row: the last one left 3 threads behind: a, b, c."
    )
    worker.left_children = LEFT[:1]
    session.commit()
    (only,) = (_words(row) for row in _part(get).select("tr.note"))
    assert only == often


def test_no_child_starts(get: Get, session: Session, running: Job) -> None:
    worker = session.get_one(Worker, running.worker_id)
    worker.left_children = [{**LEFT[0], "task": None, "kind": "died", "sentence": "exited with 9"}]
    session.commit()
    none, why = (_words(row) for row in _part(get).select("tr.note"))
    assert none == "None of its children starts. It tries again after at most 30 s."
    assert why == "41 children left today: the last one exited with 9."
    worker.pool = POOL.to_json()
    session.commit()
    assert [_words(row) for row in _part(get).select("tr.note")] == [why]


@pytest.fixture
def plain(session: Session) -> Job:
    """A job that a plain RQ worker runs."""
    job = make_job(session, "started")
    worker = make_worker(
        session, kind="plain", name="rq-legacy-1", queues=["mail"], reserved=[f"{job.id}-1"]
    )
    job.worker_id = worker.id
    make_attempt(session, job, None)
    session.commit()
    return job


def test_plain_workers_have_a_panel_of_their_own(get: Get, plain: Job) -> None:
    assert _rows(get, "ours") == []
    (row,) = _rows(get, "plain")
    assert _words(row).startswith("rq-legacy-1 web-1, pid ")
    assert [_words(cell) for cell in row.select("td")[:3]] == ["alive", "mail", "on time"]
    (child,) = _children(get)
    assert _words(child).startswith(f"work horse runs {plain.id} send_invoice since ")
    assert child.select_one("button").text == "Stop job…"


@pytest.mark.processes
def test_nobody_knows_whether_a_plain_worker_lives_while_redis_is_away(
    plain: Job, running: Job, make_app: Callable[..., Any]
) -> None:
    with Valkey() as valkey:
        client = make_app(OPSJOBS_REDIS_URL=valkey.url).test_client()
        valkey.kill()
        part = soup(client.get("/ops/jobs/workers").text).find(id="part")
    assert _words(part.select_one(".say")).startswith(
        "It is not known whether 1 plain RQ worker lives: only Redis tells, and it is silent. "
        "1 other worker is alive."
    )
    (row,) = part.select("[aria-labelledby=plain] tbody tr:not([class])")
    state, _, heartbeat, _ = (_words(cell) for cell in row.select("td"))
    assert state == "not known"
    assert heartbeat.startswith("Redis silent since ")
    (ours,) = part.select("[aria-labelledby=ours] tbody tr:not([class])")
    assert _words(ours.select_one("td.end")) == "alive"


@pytest.mark.processes
def test_no_page_counts_a_plain_worker_as_alive_while_redis_is_away(
    plain: Job, running: Job, make_app: Callable[..., Any]
) -> None:
    """A worker of ours listens to the same queue, and is alive."""
    with Valkey() as valkey:
        client = make_app(OPSJOBS_REDIS_URL=valkey.url).test_client()

        def read(path: str) -> Any:
            return soup(client.get(f"/ops/jobs/{path}").text)

        def say_all() -> list[str]:
            workers = read("lifeline").select_one("[aria-labelledby=workers]")
            mail = read("queues/mail").find(id="part")
            (row,) = [
                each
                for each in read("queues").select("table.rows tbody tr")
                if _words(each).startswith("mail")
            ]
            return [
                _words(read("").select("#machinery li")[-1]),
                _words(workers.select_one("header p")),
                _words(row.select_one("[data-label=workers]")),
                _words(mail.select(".lead span")[1]),
                *sorted(map(_words, mail.select("[aria-labelledby=listeners] td.end"))),
                *sorted(_words(each)[:12] for each in workers.select("[data-label=heartbeat]")),
            ]

        assert say_all() == [
            *("2 workers alive", "2 alive", "2", "2 workers listening"),
            *("alive", "alive", "on time", "on time"),
        ]
        valkey.kill()
        assert say_all() == [
            "1 of 2 workers alive, 1 not known",
            "1 alive, 1 not known",
            "1 alive, 1 not known",
            "1 worker listening, 1 not known",
            *("alive", "not known", "Redis silent", "on time"),
        ]
        assert "1 plain RQ worker lives: only Redis tells" in _words(read("queues").find(id="part"))


@pytest.mark.processes
def test_no_command_lists_a_plain_worker_as_alive_while_redis_is_away(
    plain: Job, running: Job, session: Session, make_app: Callable[..., Any]
) -> None:
    """Beside the plain one that is alive, one is late, and one was asked to leave, so it listens no more."""
    make_worker(session, kind="plain", queues=["mail"], heartbeat_at=ago(minutes=10))
    leaving: dict[str, Any] = {"drain_requested_at": ago(minutes=1), "drain_requested_by": "anna"}
    make_worker(session, kind="plain", queues=["mail"], **leaving)
    session.commit()
    with Valkey() as valkey:
        app = make_app(OPSJOBS_REDIS_URL=valkey.url)

        def run(*words: str) -> Any:
            return app.test_cli_runner().invoke(args=["opsjobs", *words])

        def list_queue() -> tuple[str, Any]:
            listed = run("queue", "list", "--find", "mail")
            (found,) = json.loads(run("queue", "list", "--find", "mail", "--json").output)["queues"]
            return listed.output.rpartition("  ")[2], (found["workers"], found["workers_not_known"])

        assert list_queue() == ("2 workers\n", (2, 0))
        assert "rq-legacy-1 is alive, " in run("workers").output
        valkey.kill()
        assert list_queue() == ("1 worker, 2 not known\n", (1, 2))
        said = run("workers")
        assert (
            "rq-legacy-1 is not known to live, because its Redis does not answer, " in said.output
        )
        assert "web-1:7 is alive, " in said.output
        session.execute(
            update(Worker).where(Worker.kind == "pool").values(heartbeat_at=ago(days=1))
        )
        session.commit()
        states = {one["state"] for one in json.loads(run("workers", "--json").output)["workers"]}
        assert states == {"late", "not known"}
        assert run("workers").exit_code == 0, "the plain one may be alive"
        session.execute(delete(Worker).where(Worker.kind == "plain"))
        session.commit()
        assert run("workers").exit_code == 1


@pytest.mark.processes
def test_that_a_plain_worker_is_late_or_has_no_queue_yet_means_nothing_while_redis_is_away(
    session: Session, make_app: Callable[..., Any]
) -> None:
    """Nobody else listens to the queue of the first one, where a job is due."""
    make_loops(session)
    make_job(session, "available", queue="mail")
    make_worker(session, kind="plain", queues=["mail"], heartbeat_at=ago(minutes=10))
    make_worker(session, kind="plain", queues=[])
    session.commit()
    with Valkey() as valkey:
        client = make_app(OPSJOBS_REDIS_URL=valkey.url).test_client()

        def read(path: str) -> str:
            return _words(soup(client.get(f"/ops/jobs/{path}").text).find(id="part"))

        assert "1 of 2 workers is late." in read("workers")
        assert "No worker is known" not in read("lifeline")
        assert "no live worker listens" in read("queues")
        valkey.kill()
        overview = read("")
        assert "0 of 2 workers alive, 2 not known" in overview
        assert "No worker is running" not in overview
        workers = read("workers")
        assert (
            "It is not known whether 2 plain RQ workers live: only Redis tells, and it is silent."
            in workers
        )
        assert " late." not in workers
        assert "other worker" not in workers
        assert "0 alive, 2 not known" in read("lifeline")
        for path in ("queues", "queues/mail"):
            part = read(path)
            assert "no live worker listens" not in part, path
            assert "1 not known" in part, path
        make_worker(session, "missing")
        session.commit()
        assert "0 are alive. It is not known whether 2 plain RQ workers live." in read("workers")


def test_a_queue_without_a_worker_is_said_with_the_command_that_starts_one(
    get: Get, session: Session, running: Job
) -> None:
    assert not _part(get).select("#start")
    for queue in ("reports", "reports", "mail"):
        make_job(session, queue=queue)
    paused = make_job(session, queue="paused").queue
    session.add(Queue(name=paused, created_at=ago(days=1), **is_paused()))
    session.commit()
    assert _say(get) == (
        "No worker listens to 1 queue with due jobs. 1 worker is alive and listens to others."
    )
    panel = _part(get).select_one("[aria-labelledby=start]")
    assert _words(panel.select_one("p:has(a)")).startswith("reports: 2 due, the first since ")
    (command,) = panel.select("code")
    assert command.text == "flask opsjobs worker reports"
    assert panel.select_one("button")["data-copy"] == command["id"]


def test_a_draining_one_listens_to_nothing(get: Get, session: Session) -> None:
    make_loops(session)
    leaving = make_worker(session, queues=["reports"])
    leaving.drain_requested_at, leaving.drain_requested_by = ago(seconds=9), "anna"
    session.commit()
    assert _say(get) == (
        "1 worker alive, none late, none missing. 1 worker is draining and takes nothing new."
    )
    make_job(session, queue="reports")
    session.commit()
    unserved = "No worker listens to 1 queue with due jobs."
    assert _say(get) == f"{unserved} 1 worker is draining and takes nothing new."
    make_worker(session, queues=["mail"])
    session.commit()
    assert _say(get) == (
        f"{unserved} 1 worker is alive and listens to others. 1 worker is draining and takes nothing new."
    )


def test_stop_is_asked_for_with_the_job_as_subject_and_may_be_denied(
    get: Get, running: Job, access: Access
) -> None:
    access.held -= {"job.cancel"}
    (row,) = _children(get)
    assert "needs job.cancel" in row.select_one("button[disabled]").text
    assert ("job.cancel", f"job/{running.id}") in access.asked


def test_a_job_that_is_being_stopped_says_so(get: Get, session: Session, running: Job) -> None:
    running.cancel_requested_at = ago(seconds=3)
    running.cancel_requested_by, running.cancel_reason = "anna", "it takes too long"
    session.commit()
    (row,) = _children(get)
    assert "stopping" in row.text
    assert not row.select("button")


def test_what_became_of_the_jobs_of_a_missing_one(get: Get, session: Session) -> None:
    rescued = make_job(session, "available", dispatch_no=1)
    left = make_job(session, "started")
    done = make_job(session, "finished")
    gone = make_worker(
        session, "missing", reserved=[f"{job.id}-1" for job in (rescued, left, done)]
    )
    make_attempt(session, rescued, "lost", cause_of_death="worker vanished: no heartbeat")
    make_attempt(session, left, None)
    make_attempt(session, done, "returned")
    begun_since, of_another = (make_job(session, "available", dispatch_no=1) for _ in range(2))
    for job, worker_id in ((begun_since, gone.id), (of_another, gone.id + 1)):
        make_attempt(
            session, job, "lost", worker_id=worker_id, death="vanished", ended_at=gone.ended_at
        )
    session.commit()
    assert _say(get).startswith("1 worker went missing in the last day. 0 are alive.")
    (row,) = _rows(get, "missing")
    words = " ".join(row.text.split())
    assert gone.name in words
    assert f"{rescued.id} send_invoice rescued, now available" in words
    assert f"{left.id} send_invoice not rescued yet, now started" in words
    assert f"{done.id} send_invoice returned, now finished" in words
    assert f"{begun_since.id} send_invoice rescued, now available" in words
    assert f"{of_another.id} send_invoice" not in words


def test_the_jobs_of_a_missing_one_are_rescued_from_its_row(
    get: Get, client: Any, session: Session, access: Access
) -> None:
    gone = make_worker(session, "missing", name="web-1:9")
    jobs = [make_job(session, "started", worker_id=gone.id) for _ in range(2)]
    session.commit()
    same = {"Sec-Fetch-Site": "same-origin"}
    assert "2 jobs wait for a rescue." in _say(get)
    (row,) = _rows(get, "missing")
    button = row.select_one("button")
    assert button.text == "Rescue 2 jobs…"
    answer = client.post(button["formaction"], headers=same)
    assert answer.status_code == 303
    preview = soup(client.get(answer.headers["Location"]).text)
    assert "Rescue 2 jobs" in preview.select_one("h1").text
    access.held -= {"job.rescue"}
    (row,) = _rows(get, "missing")
    assert "needs job.rescue" in row.select_one("button[disabled]").text
    for job in jobs:
        job.state, job.worker_id = "available", None
    session.commit()
    assert client.post("/ops/jobs/workers/web-1:9/rescue", headers=same).status_code == 403
    access.held |= {"job.rescue"}
    answer = client.post("/ops/jobs/workers/web-1:9/rescue", headers=same)
    assert answer.status_code == 404
    assert "The worker web-1:9 has no job" in answer.text


def test_a_missing_one_that_left_nothing_may_be_forgotten(get: Get, session: Session) -> None:
    make_worker(session, "missing", name="web-1:9")
    session.commit()
    (row,) = _rows(get, "missing")
    button = row.select_one("button")
    assert (button.text, button["formaction"]) == ("Forget…", "/ops/jobs/workers/web-1:9/forget")


def test_a_live_one_may_be_drained_and_says_that_it_is(get: Get, session: Session) -> None:
    worker = make_worker(session, name="web-1:9")
    session.commit()
    (row,) = _rows(get, "ours")
    button = row.select_one("button")
    assert (button.text, button["formaction"]) == ("Drain…", "/ops/jobs/workers/web-1:9/drain")
    worker.drain_requested_at, worker.drain_requested_by = ago(seconds=9), "anna"
    session.commit()
    (row,) = _rows(get, "ours")
    assert _words(row.select_one("td.end")) == "draining"
    button = row.select_one("button")
    assert (button.text, button["name"], button["value"]) == ("Stop now…", "grace", "0")
    assert button["formaction"] == "/ops/jobs/workers/web-1:9/stop"
    (note,) = _part(get).select("tr.note")
    assert _words(note).startswith("anna drained it ")


def test_those_who_stopped_lately_are_listed_and_older_ones_are_not(
    get: Get, session: Session
) -> None:
    lately = make_worker(session, "stopped")
    make_worker(session, "stopped", ended_at=ago(days=2), started_at=ago(days=3))
    session.commit()
    (row,) = _rows(get, "stopped")
    assert lately.name in row.text
    assert "2 h 59 min" in row.text


def test_reserved_deliveries_that_no_heartbeat_of_ours_writes_are_passed_over(
    session: Session,
) -> None:
    odd = ["", "x", "1", "-", "1-", "-1", "1-2-3", "9" * 40 + "-1", "99-1", "opsjobs-1-1"]
    worker = make_worker(session, reserved=odd)
    session.commit()
    found = list_workers(session, ago(seconds=0), 45)
    assert list_reserved(session, found) == {worker.id: []}


def test_every_one_of_many_is_listed(get: Get, session: Session) -> None:
    for _ in range(30):
        job = make_job(session, "started")
        make_worker(session, reserved=[f"{job.id}-1"])
        make_attempt(session, job, None)
    session.commit()
    assert len(_rows(get, "ours")) == 30
    rows = _children(get)
    assert len(rows) == 30
    assert all(len(row.select("button")) == 1 for row in rows)


def test_a_worker_of_an_older_deploy_is_marked(get: Get, session: Session) -> None:
    first = make_deploy(session, "2026.11.2")
    second = make_deploy(session, "2026.11.3")
    for name, version, deploy in (
        ("old", "2026.11.2", first.id),
        ("new", "2026.11.3", second.id),
        ("none", None, None),
    ):
        make_worker(session, name=name, deploy_version=version, deploy_id=deploy)
    session.commit()

    def marked() -> list[str]:
        rows = _part(get).select("[aria-labelledby=ours] tbody th[scope=row]")
        return [row.span.text for row in rows if row.select_one(".tag")]

    assert marked() == ["old"]
    # The marker of a roll-back is the newest.
    make_deploy(session, "2026.11.2")
    session.commit()
    assert marked() == ["new"]
