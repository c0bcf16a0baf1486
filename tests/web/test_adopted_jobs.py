"""Adopted jobs on pages and in exports: the word and facts of RQ, sources of times, intervals, payload."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.jobs.adopted.models import RqFacts, StoredView
from flask_opsjobs.jobs.lifecycle import ADOPTED_STATES
from flask_opsjobs.jobs.models import Job
from tests.web.every import soup
from tests.web.rows import ago, make_attempt, make_job

Get = Callable[..., Any]


def adopt(session: Session, state: str, view: dict[str, Any] | None = None, **facts: Any) -> Job:
    """An adopted job with facts and a view."""
    job = make_job(session, state, origin="rq", rq_id="nightly", rq_status=facts.pop("word", state))
    defaults = {"created_source": "rq", "changed_at": ago()}
    session.add(RqFacts(job_id=job.id, **defaults | facts))
    session.add(StoredView(job_id=job.id, **view or {"arguments": '{"*args": [7]}'}))
    session.commit()
    return job


def words_of(get: Get, job: Job, section: str = "") -> str:
    page = soup(get(f"/jobs/{job.id}").text)
    found = page.select_one(f"[aria-labelledby={section}]") if section else page.main
    return " ".join(found.get_text(" ").split())


@pytest.mark.parametrize("state", ADOPTED_STATES)
def test_every_state_has_a_page_with_rqs_word(state: str, get: Get, session: Session) -> None:
    job = adopt(session, state, structure="failed")
    words = words_of(get, job)
    assert f"a plain RQ job, {state} in RQ" in words
    facts = words_of(get, job, "facts")
    assert f"RQ says {state}, in failed of default" in facts
    assert "RQ id nightly" in facts
    assert "Origin RQ" in facts
    assert "priority" not in words.lower()


def test_each_time_says_who_reported_it(get: Get, session: Session) -> None:
    job = adopt(session, "finished", started_source="worker", ended_source="rq")
    facts = words_of(get, job, "facts")
    assert facts.count("reported by rq") == 2
    assert facts.count("reported by worker") == 1


def test_an_attempt_on_a_plain_worker_has_no_log(get: Get, session: Session) -> None:
    job = adopt(session, "finished")
    make_attempt(session, job, log_tail=None, pid=None)
    session.commit()
    assert words_of(get, job, "log").endswith(
        "RQ keeps no log. Attempts on a worker of ours have one."
    )


def test_a_time_that_nobody_saw_is_an_interval(get: Get, session: Session) -> None:
    job = adopt(session, "unknown", ended_source="observer", ended_after=ago(minutes=15))
    assert "Ended between" in words_of(get, job, "facts")
    history = words_of(get, job, "history")
    assert "Unknown: RQ's record of it was gone before anybody saw its end" in history
    assert " to " in history
    assert "observer" in history


def test_the_end_of_a_run_that_nobody_saw_is_an_interval(get: Get, session: Session) -> None:
    job = adopt(session, "unknown", ended_source="observer", ended_after=ago(minutes=15))
    start, minute = ago(minutes=20), timedelta(minutes=1)
    seen = {"ended_after": (start + 5 * minute).isoformat()}
    times = {"started_at": start, "ended_at": start + 10 * minute}
    make_attempt(
        session, job, "lost", **times, worker_id=None, execution_id="run", death_facts=seen
    )
    session.commit()
    attempts = words_of(get, job, "attempts")
    assert "5 min 0 s to 10 min 0 s" in attempts
    page = soup(get(f"/jobs/{job.id}").text)
    ends = [li for li in page.select("[aria-labelledby=history] li") if "Attempt" in li.text]
    times_shown = [len(li.select("time")) for li in ends if "ended" in li.text]
    assert times_shown == [2], "from the last look before to the first after"


def test_a_time_without_a_look_before_has_no_begin(get: Get, session: Session) -> None:
    job = adopt(session, "queued", dispatched_source="observer")
    assert "or before, reported by observer" in words_of(get, job, "facts")


def test_payload_is_shown_as_text(get: Get, session: Session) -> None:
    job = adopt(session, "finished", {"arguments": '{"user": "ada"}', "result": "[1, 2]"})
    assert "ada" in words_of(get, job, "args")
    assert "1" in words_of(get, job, "output")


def test_what_a_job_waits_for_is_said_once(get: Get, session: Session) -> None:
    job = adopt(session, "deferred", depends_on=["parent", "other"], allows_failure=True)
    chain = words_of(get, job, "relations")
    assert "depends on, runs also when they fail parent gone, or never seen other gone" in chain
    assert "parent" not in words_of(get, job, "facts")


def test_of_many_parents_the_first_are_shown(get: Get, session: Session) -> None:
    job = adopt(session, "deferred", depends_on=[f"parent-{n}" for n in range(23)])
    chain = words_of(get, job, "relations")
    assert "parent-19" in chain
    assert "parent-20" not in chain
    assert "and 3 more" in chain


def test_facts_of_rq_are_shown(get: Get, session: Session) -> None:
    job = adopt(
        session,
        "deferred",
        group_id="letters",
        cron="hourly",
        rate_limit_key="api",
        retries_left=2,
        repeats_left=0,
        ttl_seconds=60,
    )
    facts = words_of(get, job, "facts")
    for words in (
        "Group letters",
        "RQ cron hourly",
        "Rate limit api",
        "Retries left 2",
        "Repeats left 0",
        "TTL 60 s",
    ):
        assert words in facts


def test_attempts_that_rq_no_longer_kept_are_said_to_be_missing(get: Get, session: Session) -> None:
    job = adopt(session, "failed")
    make_attempt(session, job, dispatch_no=4, attempt=4, execution_id="e4")
    session.commit()
    attempts = words_of(get, job, "attempts")
    assert "History unavailable: RQ no longer kept attempts 1 to 3." in attempts
    assert attempts.count(" rq") == 1


def test_a_job_without_any_kept_attempt_says_so(get: Get, session: Session) -> None:
    job = adopt(session, "finished")
    assert "History unavailable" in words_of(get, job, "attempts")


def test_the_list_marks_them(get: Get, session: Session) -> None:
    adopt(session, "queued")
    make_job(session, "queued")
    session.commit()
    tags = soup(get("/jobs").text).select("td.queue .tag")
    assert [tag.text for tag in tags] == ["RQ"]


def test_an_export_has_their_place_id_word_and_arguments(get: Get, session: Session) -> None:
    adopt(session, "failed", word="stopped")
    first, *_ = get("/jobs.ndjson?origin=rq").text.splitlines()
    row = json.loads(first)
    assert (row["rq_place"], row["rq_id"], row["rq_status"]) == ("default", "nightly", "stopped")
    assert row["args"] == {"*args": [7]}
