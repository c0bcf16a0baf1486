"""Exports of jobs: the whole filter, streamed, through the display policy, and honest when they break off."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.secret_patterns import clean_secrets, is_secret_key
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.search import further_queries, hit_queries
from flask_opsjobs.web.app import export
from flask_opsjobs.web.jobs import exports as job_exports
from tests.support.policies import ShowAll
from tests.support.waiting import wait_until
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import make_job

Get = Callable[..., Any]


def _csv(text: str) -> tuple[list[dict[str, str]], str]:
    """The rows, and the last line."""
    lines = list(csv.reader(io.StringIO(text)))
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:-1]], lines[-1][0]


def _ndjson(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows, and what the last line says."""
    rows = [json.loads(line) for line in text.splitlines()]
    return rows[:-1], rows[-1]["opsjobs_export"]


def test_every_job_of_every_state_is_in_both(get: Get, jobs: dict[str, Job]) -> None:
    answer = get("/jobs.csv")
    assert answer.mimetype == "text/csv"
    assert 'attachment; filename="opsjobs-jobs-' in answer.headers["Content-Disposition"]
    rows, last = _csv(answer.text)
    assert last == f"# complete: {len(jobs)} rows."
    assert [int(row["id"]) for row in rows] == sorted((j.id for j in jobs.values()), reverse=True)
    objects, said = _ndjson(get("/jobs.ndjson").text)
    assert said == {"rows": len(jobs), "is_complete": True, "note": None}
    assert [str(one["id"]) for one in objects] == [row["id"] for row in rows]
    assert {one["state"] for one in objects} == set(jobs)
    assert objects[0]["args"] == {"account_id": 42}
    assert objects[0]["created_at"] == rows[0]["created_at"]
    assert objects[0]["created_at"].endswith("Z")


def test_an_export_of_a_state_has_all_that_its_tab_shows(
    get: Get, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search in all states reads the newest 15 jobs, the one in the state the newest 6 of it."""
    for _ in range(57):
        make_job(session, "finished", tags=["all"])
    tagged = [make_job(session, "failed", tags=["all"]).id for _ in range(3)]
    for _ in range(10):
        make_job(session, "failed")
    session.commit()
    session.execute(text("ANALYZE opsjobs.jobs"))
    session.commit()
    for module, name, most in (
        (hit_queries, "MOST_HITS", 10),
        (hit_queries, "NEWEST_JOBS", 15),
        (hit_queries, "MANY_JOBS", 50),
        (further_queries, "MOST_NEWEST", 5),
    ):
        monkeypatch.setattr(module, name, most)
    page = soup(get("/jobs?q=tag:all state:failed").text)
    assert [int(one.text) for one in page.select("tr[data-row] a.id")] == tagged[::-1]
    rows, said = _ndjson(get("/jobs.ndjson?q=tag:all state:failed").text)
    assert [row["id"] for row in rows] == tagged[::-1]
    assert "5 jobs" in said["note"]


def test_an_export_is_the_filter_and_nothing_else(get: Get, session: Session) -> None:
    wanted = make_job(session, "failed", queue="mail", tags=["eu"], args={"n": 10**30, "x": 1.50})
    make_job(session, "failed", queue="mail", args={"n": 1})
    make_job(session, "finished", queue="mail", tags=["eu"])
    session.commit()
    query = "/jobs.ndjson?state=failed&q=queue:mail tag:eu"
    (row,), said = _ndjson(get(query).text)
    assert row["id"] == wanted.id
    assert row["args"]["n"] == 10**30
    assert said["is_complete"]
    assert len(_ndjson(get("/jobs.ndjson?q=queue:mail").text)[0]) == 3
    assert _csv(get("/jobs.csv?queue=nowhere").text) == ([], "# complete: 0 rows.")


def _count_held(session: Session) -> Any:
    """How many sessions of others are in a transaction."""
    statement = text(
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND pid <> "
        "pg_backend_pid() AND datname = current_database()"
    )
    held = session.execute(statement).scalar_one()
    session.commit()
    return held


def test_it_is_read_in_batches_each_in_a_transaction_of_its_own(
    client: FlaskClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_exports, "_SIZE", 3)
    for _ in range(8):
        make_job(session, tags=["all"])
    session.commit()
    for path in (
        "/jobs.csv",
        "/jobs.csv?q=tag:all",
        "/jobs.csv?state=available",
        "/jobs.csv?q=id:1",
    ):
        lines: Any = client.get(f"/ops/jobs{path}", buffered=False).response
        first = "".join(part.decode() for part in islice(lines, 2))
        # Enqueued after it began: a higher id, so that it ends.
        make_job(session, tags=["all"])
        # Nothing is held while the reader takes its time, once Postgres has heard of the end.
        wait_until(lambda: _count_held(session) == 0, 10)
        rows, last = _csv(first + b"".join(lines).decode())
        assert last == f"# complete: {len(rows)} rows."
        assert len({row["id"] for row in rows}) == len(rows)


def test_payload_is_exported_only_to_whom_may_see_it(
    get: Get, access: Access, jobs: dict[str, Job]
) -> None:
    access.held -= {"payload.view"}
    for path in ("/jobs.csv", "/jobs.ndjson"):
        text = get(path).text
        for hidden in ("GatewayTimeout", "account_id", "args", "error", "ended_reason", "meta"):
            assert hidden not in text


class _Hides(ShowAll):
    def is_hidden_key(self, key: str) -> bool:
        return is_secret_key(key)

    def clean_text(self, text: str) -> str:
        return clean_secrets(text)


def _carry(session: Session) -> None:
    args: dict[str, Any] = {
        "token": "hunter2",
        "deep": [{"password": "hunter2"}],
        "note": "hunter2",
        "s": "api_key=hunter2",
    }
    args["password=hunter2"] = 1
    make_job(
        session,
        "failed",
        task="pay",
        args=args,
        meta=args,
        tags=["secret=hunter2", "eu"],
        error="password=hunter2",
        ended_reason="token: hunter2",
    )
    session.commit()


def test_everything_passes_the_display_policy(
    make_app: Callable[..., Flask], opsjobs: OpsJobs, session: Session
) -> None:
    def pay(note: str = "") -> None:
        """Keeps a note back."""

    opsjobs.task(redact={"note"})(pay)
    client = make_app(opsjobs=opsjobs, display=_Hides()).test_client()
    _carry(session)
    # What was stored under the redacted name before it was: only in `meta`, which has no parameters.
    session.execute(text("UPDATE opsjobs.jobs SET meta = meta - 'note'"))
    session.commit()
    for path in ("/jobs.csv", "/jobs.ndjson"):
        answer = client.get(f"/ops/jobs{path}").text
        assert "hunter2" not in answer
    (row,), _ = _ndjson(client.get("/ops/jobs/jobs.ndjson").text)
    assert row["args"]["token"] == "[hidden: key token]"
    assert row["args"]["deep"] == [{"password": "[hidden: key password]"}]
    assert row["args"]["note"] == "[hidden: redact]"
    assert row["tags"] == ["secret=[hidden]", "eu"]
    assert row["error"] == "password=[hidden]"


def test_a_policy_that_raises_hides_everything_and_the_export_goes_on(
    make_app: Callable[..., Flask], session: Session
) -> None:
    class Raises(ShowAll):
        def is_hidden_key(self, key: str) -> bool:
            raise RuntimeError("no")

        def clean_text(self, text: str) -> str:
            raise RuntimeError("no")

    _carry(session)
    client = make_app(display=Raises()).test_client()
    for path in ("/jobs.csv", "/jobs.ndjson"):
        answer = client.get(f"/ops/jobs{path}").text
        assert "hunter2" not in answer
        assert "[hidden: display policy failed]" in answer
        assert "omplete" in answer.splitlines()[-1]


SHAPELESS = "\ufeff\u200b\u2060\u00ad\u3164\x01\x0b\x1b\x7f\u202e \xa0\u3000"
FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "\uff1d1",
    "\n=1",
    "a;=1+1",
    "a; +1",
    "a;b;@x",
    "a\t-1",
    "a\n=1",
    "a;\ufeff=1",
    'a;"=1"',
    "a;'=1",
    "a\r\n\r\n=1;=2",
    *(f"{one}=1" for one in SHAPELESS),
    f"{SHAPELESS}+1",
    f"a;{SHAPELESS}-1",
]
HARMLESS = ["a=1", "a; b", "2026-11-25", "x - y", "a,=1", "user@host", "1;2;3", "'", "a\nb", ""]


def _is_computed(cell: str) -> bool:
    """Whether a spreadsheet that ends cells at `;`,
    a tab or a line finds a formula, past what has no shape.
    """
    parts = re.split(r"[;\t\r\n]", cell)
    return any(part.lstrip(SHAPELESS + '"').startswith(tuple("=+-@\uff1d")) for part in parts)


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_spreadsheet_computes_nothing(formula: str, get: Get, session: Session) -> None:
    make_job(
        session,
        "failed",
        task=formula,
        queue=formula,
        tags=[formula],
        error=formula,
        ended_reason=formula,
    )
    session.commit()
    (row,), _ = _csv(get("/jobs.csv").text)
    for name in ("task", "queue", "tags", "error", "ended_reason"):
        assert row[name].startswith("'"), "all of the cell is text"
        assert not _is_computed(row[name])
        assert row[name].replace("'", "") == formula.replace("'", ""), "and nothing is lost"
    (as_is,), _ = _ndjson(get("/jobs.ndjson").text)
    assert as_is["task"] == formula


@pytest.mark.parametrize("text", HARMLESS)
def test_what_no_spreadsheet_computes_is_exported_as_it_is(
    text: str, get: Get, session: Session
) -> None:
    make_job(session, "failed", error=text)
    session.commit()
    (row,), _ = _csv(get("/jobs.csv").text)
    assert row["error"] == text


def test_a_cell_of_any_size_is_marked_in_no_time() -> None:
    for piece in ("\n", ";", " ", "\t=", ";\ufeff", "\u200b"):
        assert export._cell(piece * 300_000)


def test_quotes_commas_and_lines_stay_in_their_cell(get: Get, session: Session) -> None:
    said = 'a "quote", a comma\nand a line \u2028 \u20ac'
    make_job(session, "failed", error=said, args={"x": said})
    session.commit()
    (row,), _ = _csv(get("/jobs.csv").text)
    assert row["error"] == said
    assert json.loads(row["args"]) == {"x": said}
    assert json.loads(get("/jobs.ndjson").text.split("\n")[0])["error"] == said


def test_a_search_that_stopped_says_so_in_the_last_line(
    get: Get, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    monkeypatch.setattr(hit_queries, "NEWEST_ERRORS", 3)
    for _ in range(5):
        make_job(session, "failed", tags=["eu"])
    session.commit()
    rows, last = _csv(get("/jobs.csv?q=tag:eu").text)
    assert len(rows) == 3
    assert last.endswith("among the newest 20000 jobs, and others, 3 in all.")
    _, said = _ndjson(get("/jobs.ndjson?q=error:gateway").text)
    assert said["note"] == "Searched the newest 3 jobs with an error."
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 3)
    rows, said = _ndjson(get("/jobs.ndjson?q=-queue:none").text)
    assert len(rows) == 3
    assert said["note"] == "Searched at most 3 jobs of its task, queue or state, the newest first."
    _, said = _ndjson(get("/jobs.ndjson?q=ended:<1h").text)
    assert said["note"] == "Searched at most 3 jobs, those that ended last in this time."


@pytest.mark.parametrize("path", ["/jobs.csv", "/jobs.ndjson"])
def test_what_breaks_off_says_so_in_its_last_line(
    path: str, make_app: Callable[..., Flask], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_exports, "_SIZE", 2)
    for _ in range(5):
        make_job(session)
    session.commit()
    client = make_app(OPSJOBS_PAGE_TIMEOUT_SECONDS=0.2).test_client()
    lines: Any = client.get(f"/ops/jobs{path}", buffered=False).response
    got = b"".join(islice(lines, 2 if path.endswith("csv") else 1))
    session.execute(text("LOCK TABLE opsjobs.jobs IN ACCESS EXCLUSIVE MODE"))
    got += b"".join(lines)
    session.rollback()
    last = got.decode().splitlines()[-1]
    assert "did not answer within 0.2 s" in last
    if path.endswith("csv"):
        assert last.lstrip('"').startswith("# incomplete: 2 rows. Stopped:")
    else:
        assert json.loads(last)["opsjobs_export"]["is_complete"] is False


def test_a_fault_midway_says_so_and_goes_to_the_log(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    def batches() -> Any:
        yield [{"a": 1}]
        raise ZeroDivisionError("secret detail")

    with app.app_context():
        answer = export.make_download("csv", "x", ["a"], batches())
        got = "".join(answer.response)  # type: ignore[arg-type]
    assert got.splitlines()[-1].startswith("# incomplete: 1 rows. Stopped by an error")
    assert "secret detail" not in got
    assert "secret detail" in caplog.text


def test_what_fails_at_once_is_a_page(
    make_app: Callable[..., Flask], host: Host, session: Session
) -> None:
    make_job(session)
    session.commit()
    client = make_app(OPSJOBS_PAGE_TIMEOUT_SECONDS=0.2).test_client()
    client.get("/ops/jobs/jobs")
    session.execute(text("LOCK TABLE opsjobs.jobs IN ACCESS EXCLUSIVE MODE"))
    answer = client.get("/ops/jobs/jobs.csv")
    assert answer.status_code == 503
    assert answer.mimetype == "text/html"
    session.rollback()


@pytest.mark.parametrize("path", ["/jobs.csv", "/jobs.ndjson"])
def test_head_answers_without_a_body(path: str, client: FlaskClient, jobs: dict[str, Job]) -> None:
    answer = client.head(f"/ops/jobs{path}")
    assert answer.status_code == 200
    assert answer.data == b""
    assert "attachment" in answer.headers["Content-Disposition"]


@pytest.mark.parametrize("path", ["/jobs.csv", "/jobs.ndjson", "/audit.csv", "/audit.ndjson"])
def test_a_page_of_another_site_gets_no_export(path: str, get: Get, jobs: dict[str, Job]) -> None:
    said = get(path, 403, headers={"Sec-Fetch-Site": "cross-site"})
    assert "A page of another site requested this export" in said.text
    assert "Content-Disposition" not in said.headers
    for site in ("same-origin", "same-site", "none"):
        get(path, headers={"Sec-Fetch-Site": site})
    get(path)
