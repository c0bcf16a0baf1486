"""The list of failures, and the page of one: sample, trend, deploys, what its jobs share, and decisions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.failures import queries
from flask_opsjobs.failures.models import Failure, TaskEnd
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.lifeline.models import LoopRun
from flask_opsjobs.overview.models import RollupPosition
from tests.web.conftest import Access
from tests.web.every import draft_form, soup
from tests.web.rows import (
    TRACEBACK,
    ago,
    clock,
    make_attempt,
    make_counted_failure,
    make_deploy,
    make_event,
    make_incident,
    make_job,
    make_loops,
    make_numbers_of_task,
)

Get = Callable[..., Any]


def _words(found: Any) -> str:
    return " ".join(found.get_text(" ").split())


def _panel(page: Any, name: str) -> str:
    found = page.select_one(f'[aria-labelledby="{name}"]')
    return "" if found is None else _words(found)


def _fail(session: Session, number: int = 1, **values: Any) -> list[Job]:
    """Failed jobs, each with an attempt that raised."""
    jobs = [make_job(session, "failed", **values) for _ in range(number)]
    for job in jobs:
        make_attempt(session, job, traceback=TRACEBACK)
    return jobs


def _count_until(session: Session, moment: datetime) -> None:
    values = {"counted_from": ago(days=40), "counted_until": moment}
    session.execute(update(RollupPosition).values(values))


def test_the_list_shows_open_failures_and_the_others_in_tabs(get: Get, session: Session) -> None:
    make_loops(session)
    session.commit()
    assert "No failure is open" in get("/lifeline/failures").text
    deploy = make_deploy(session)
    first = make_counted_failure(session, _fail(session), deploy, last_at=ago(minutes=2))
    make_counted_failure(session, title="KeyError: 'x'", number=7)
    decided: dict[str, Any] = {"decided_at": ago(minutes=1), "decided_by": "ada"}
    resolved = make_counted_failure(session, state="resolved", **decided)
    ignored = make_counted_failure(session, state="ignored", ignored_rate=3, **decided)
    session.commit()
    page = soup(get("/lifeline/failures").text)
    rows = [_words(row) for row in page.select("tr[data-row]")]
    assert len(rows) == 2
    assert rows[0].startswith(f"GatewayTimeout: no answer {first.id}, _post in billing/gateway.py")
    assert "2026.11.3" in rows[0]
    assert "KeyError: 'x'" in rows[1]
    assert [_words(tab) for tab in page.select(".tabs a")] == ["Open 2", "Resolved 1", "Ignored 1"]
    for state, failure in (("resolved", resolved), ("ignored", ignored)):
        page = soup(get(f"/lifeline/failures?state={state}").text)
        (link,) = page.select("tr[data-row] th a")
        assert link["href"] == f"/ops/jobs/lifeline/failures/{failure.id}"
    assert "/lifeline/failures" in get("/lifeline").text


def test_pages_say_that_nobody_counts_failures(get: Get, session: Session) -> None:
    failure = make_counted_failure(session)
    session.commit()
    paths = ("/lifeline/failures", f"/lifeline/failures/{failure.id}")
    for path in paths:
        assert "roll_up does not run. It has never run." in _said(get, path)
    make_loops(session)
    last_at = ago(hours=3)
    session.execute(update(LoopRun).where(LoopRun.loop == "roll_up").values(last_at=last_at))
    session.commit()
    for path in paths:
        said = _said(get, path)
        assert f"What failed since {clock(last_at)} is not here yet." in said
        assert "is not here yet. Start flask opsjobs run" in said
    session.execute(delete(Failure))
    session.commit()
    assert "No failure was open when they were counted last." in get(paths[0]).text
    session.execute(update(LoopRun).values(last_at=ago()))
    session.commit()
    assert "does not run" not in get(paths[0]).text
    assert "counted here within seconds" in get(paths[0]).text


def _said(get: Get, path: str) -> str:
    return " ".join(_words(each) for each in soup(get(path).text).select("#part > .say"))


def test_the_list_of_a_task(get: Get, session: Session) -> None:
    make_counted_failure(session, task="a task", title="one")
    make_counted_failure(session, task="another", title="two")
    session.commit()
    page = soup(get("/lifeline/failures?task=a+task").text)
    (row,) = page.select("tr[data-row]")
    assert "one" in row.text
    assert "No failure matches" in get("/lifeline/failures?task=none").text
    for wrong in ("state=gone", "after=x", "after=1", f"task={'x' * 201}", "task=%00"):
        get(f"/lifeline/failures?{wrong}", 422)


@pytest.mark.parametrize("task", ["", "&task=send_invoice"])
def test_the_list_goes_on_by_keyset(get: Get, session: Session, task: str) -> None:
    number = queries.MOST_FAILURES + 3
    at = ago(minutes=5)
    for each in range(number):  # many at the same time
        moment = at - timedelta(minutes=each // 10)
        make_counted_failure(session, first_at=moment, last_at=moment, created_at=moment)
    session.commit()
    seen: list[str] = []
    path: str | None = f"/lifeline/failures?x={task}"
    while path:
        page = soup(get(path).text)
        seen += [str(link["href"]) for link in page.select("tr[data-row] th a")]
        older = page.select_one('a[rel="next"]')
        path = older["href"].removeprefix("/ops/jobs") if older else None
    assert len(seen) == len(set(seen)) == number


def test_a_failure_says_since_when_how_often_and_where(get: Get, session: Session) -> None:
    make_deploy(session, "2026.11.2", at=ago(days=2))
    deploy = make_deploy(session)
    jobs = _fail(session, 3)
    failure = make_counted_failure(session, jobs, deploy, first_at=ago(minutes=50))
    make_numbers_of_task(session, failure.task)
    session.commit()
    page = soup(get(f"/lifeline/failures/{failure.id}").text)
    assert _words(page.h1) == "GatewayTimeout: no answer"
    assert "new in 2026.11.3" in _words(page.select_one(".chip.big"))
    assert _words(page.select_one("#part > .say strong")) == (
        "send_invoice has failed with this error since deploy 2026.11.3."
    )
    assert "3 attempts failed with it, and 3 jobs have no attempt left." in _words(
        page.select_one("#part > .say")
    )
    deploys = [_words(row) for row in page.select('[aria-labelledby="deploys"] tbody tr')]
    assert deploys[0].startswith("2026.11.3 newest since ")
    assert deploys[0].split()[-3:-2] == ["3"]
    assert "2026.11.2" in deploys[1]
    assert _panel(page, "deaths").endswith("out of memory 2 510.0 MB of 536.9 MB")


def test_what_finished_in_a_deploy_is_counted_in_whole_quarters_until_the_next(
    get: Get, session: Session
) -> None:
    quarter = queries.floor(ago(hours=3), queries.QUARTER)
    make_deploy(session, "long ago", at=ago(days=40))
    old = make_deploy(session, "old", at=quarter - timedelta(minutes=5))
    make_deploy(session, "new", at=quarter + timedelta(minutes=40))
    failure = make_counted_failure(session, _fail(session), old)
    # Before the deploy, two whole quarters, one that the next deploy cuts, and one after it; of another task.
    for number, steps in ((1, -1), (20, 0), (300, 1), (4_000, 2), (50_000, 3)):
        at = quarter + steps * queries.QUARTER
        session.add(TaskEnd(task=failure.task, quarter=at, finished=number, failed=7))
    session.add(TaskEnd(task="another", quarter=quarter, finished=600_000, failed=0))
    session.commit()
    page = soup(get(f"/lifeline/failures/{failure.id}").text)
    rows = page.select('[aria-labelledby="deploys"] tbody tr')
    assert [_words(row).split()[-2:] for row in rows] == [
        ["≥", "50,000"],
        ["≥", "320"],
        ["0", "–"],
    ]


def test_the_frames_of_the_host_are_marked(get: Get, session: Session) -> None:
    failure = make_counted_failure(session, _fail(session))
    session.commit()
    page = soup(get(f"/lifeline/failures/{failure.id}").text)
    rows = {row.td.text: row for row in page.select(".frames tr")}
    assert list(rows) == [
        "jobs/perform/perform.py:80",
        "app/billing/tasks.py:41",
        "requests/api.py:59",
        "urllib3/pool.py:9",
        "app/billing/gateway.py:64",
    ]
    marked = [place for place, row in rows.items() if row.select_one("td.lib") is None]
    assert "app/billing/tasks.py:41" in marked
    assert "app/billing/gateway.py:64" in marked
    assert not {"requests/api.py:59", "urllib3/pool.py:9"} & set(marked)
    assert "raise GatewayTimeout" in rows["app/billing/gateway.py:64"].text
    assert page.select_one("#traceback").text.strip().startswith("Traceback")


def test_another_sample_is_of_an_older_job(get: Get, session: Session) -> None:
    older, newer = _fail(session, 2)
    failure = make_counted_failure(session, [older, newer])
    session.commit()
    path = f"/lifeline/failures/{failure.id}"
    page = soup(get(path).text)
    assert f"/jobs/{newer.id}" in str(page.select_one("#sample").find_parent("header"))
    link = page.find("a", string="Another sample")
    page = soup(get(link["href"].removeprefix("/ops/jobs")).text)
    assert f"/jobs/{older.id}" in str(page.select_one("#sample").find_parent("header"))
    assert page.find("a", string="Another sample") is None
    get(f"{path}?sample=x", 422)


def test_a_failure_without_jobs_keeps_its_numbers(get: Get, session: Session) -> None:
    failure = make_counted_failure(session, number=9)
    session.commit()
    page = soup(get(f"/lifeline/failures/{failure.id}").text)
    assert "No sample: its jobs have been removed" in _panel(page, "sample")
    assert "9 attempts" in _words(page.select_one(".lead"))
    assert "No deploy is marked" in _panel(page, "deploys")
    assert page.find("button", string="Resolve now…") is not None


def test_what_the_failed_jobs_share_and_others_do_not(get: Get, session: Session) -> None:
    jobs = _fail(session, 4, args={"signature": "v2", "receiver": {"region": "eu"}, "n": 1})
    jobs += _fail(session, 4, args={"signature": "v2", "receiver": {"region": "us"}, "n": 1})
    for number in range(3):
        args = {"signature": "v1", "receiver": {"region": "eu" if number else "us"}, "n": 1}
        make_job(session, "finished", args=args)
    # It finished before the failure began, and one finished only at its second attempt.
    long_ago = {"created_at": ago(days=2), "ended_at": ago(days=2)}
    make_job(session, "finished", args={"signature": "v2"}, **long_ago)
    make_job(session, "finished", args={"signature": "v2"}, attempt=2)
    # Jobs are compared with those that were enqueued before the newest of them.
    jobs += _fail(session, 1, args={"signature": "v2"})
    failure = make_counted_failure(session, jobs, first_at=ago(hours=1))
    session.commit()
    page = soup(get(f"/lifeline/failures/{failure.id}").text)
    rows = [_words(row) for row in page.select('[aria-labelledby="args"] tbody tr')]
    assert rows == [
        'signature = "v2" 9 of 9 0 of 3 all failed, none finished',
        "n = 1 8 of 9 3 of 3 no difference",
    ]
    assert 'All 9 compared jobs have signature = "v2"' in _words(page.select_one("#part > .say"))


def test_arguments_need_payload_view_and_hidden_ones_are_not_compared(
    get: Get, make_app: Callable[..., Flask], opsjobs: OpsJobs, access: Access, session: Session
) -> None:
    class Hides:
        def is_hidden_key(self, key: str) -> bool:
            return key == "deep"

        def clean_text(self, text: str) -> str:
            return text.replace("hunter2", "[hidden]")

    args = {"deep": {"more": 1}, "text": "hunter2", "plain": "yes"}
    failure = make_counted_failure(session, _fail(session, 2, args=args))
    session.commit()
    path = f"/lifeline/failures/{failure.id}"
    shown = make_app(opsjobs=opsjobs, access=access, display=Hides()).test_client()
    page = soup(shown.get(f"/ops/jobs{path}").text)
    (row,) = page.select('[aria-labelledby="args"] tbody tr')
    assert _words(row) == 'plain = "yes" 2 of 2 0 of 0 nothing to compare with'
    access.held.discard("payload.view")
    page = soup(get(path).text)
    assert page.select_one('[aria-labelledby="args"]') is None
    assert _words(page.h1) == "GatewayTimeout in send_invoice"
    assert "no answer" not in page.text
    assert "plain" not in page.text
    assert page.select(".frames") == []
    access.held.add("payload.view")
    access.denied.add(("payload.view", f"failure/{failure.id}"))
    assert "no answer" not in get(path).text


def test_the_jobs_need_jobs_view(get: Get, session: Session, access: Access) -> None:
    (job,) = _fail(session)
    failure = make_counted_failure(session, [job])
    session.commit()
    path = f"/lifeline/failures/{failure.id}"
    page = soup(get(path).text)
    (row,) = page.select('[aria-labelledby="jobs"] tbody tr')
    assert _words(row).startswith(f"{job.id} failed")
    assert "account_id=42" in row.text
    access.held.discard("jobs.view")
    page = soup(get(path).text)
    assert page.select('[aria-labelledby="jobs"] tbody tr') == []
    assert page.find("a", string="See its jobs") is None


def test_the_trend_draws_each_quarter_and_day_with_deploys(get: Get, session: Session) -> None:
    _count_until(session, ago(minutes=1))
    deploy = make_deploy(session)
    failure = make_counted_failure(session, _fail(session, 2), deploy)
    make_numbers_of_task(session, failure.task)
    session.commit()
    page = soup(get(f"/lifeline/failures/{failure.id}").text)
    day, month = page.select('[aria-labelledby="trend"] svg')
    assert day.select_one('path[data-is="failed"]')["d"].count("z") == 1
    assert day.select_one('path[data-is="context"]')["d"].count("z") == 1
    assert day.select(".uncounted") == []
    assert month.select_one('path[data-is="failed"]')["d"].count("z") == 1
    for chart in (day, month):
        assert [flag.title.text for flag in chart.select(".deploy")] == ["deploy 2026.11.3"]
    assert "2 attempts failed on the last day" in day.desc.text


def test_a_label_of_a_deploy_never_stands_under_the_flag_of_another(
    get: Get, session: Session
) -> None:
    """The newest flag is at the right edge, and its label would stand where the older flag is."""
    make_deploy(session, "2026.11.2", at=ago(hours=26))
    failure = make_counted_failure(session, _fail(session), make_deploy(session))
    session.commit()
    page = soup(get(f"/lifeline/failures/{failure.id}").text)
    day, month = page.select('[aria-labelledby="trend"] svg')
    labels = {
        chart: [text.text for text in chart.select(".deploy + text")] for chart in (day, month)
    }
    assert labels[day] == ["2026.11.3"]
    assert len(month.select(".deploy")) == 2
    assert labels[month] == ["2026.11.2"]


def test_a_state_is_red_only_while_somebody_must_decide(get: Get, session: Session) -> None:
    make_counted_failure(session, _fail(session), last_at=ago(minutes=2))
    make_counted_failure(session, last_at=ago(minutes=3), regressed_at=ago(minutes=3))
    make_counted_failure(session, last_at=ago(minutes=4))
    session.commit()
    chips = soup(get("/lifeline/failures").text).select("tr[data-row] .chip")
    assert [(chip.text, chip["data-is"]) for chip in chips] == [
        ("open", "failed"),
        ("regressed", "failed"),
        ("open", "waiting"),
    ]
    # The overview says the same of the same failures.
    chips = soup(get("").text).select('[aria-labelledby="failures"] .chip')
    assert {(chip.text, chip["data-is"]) for chip in chips} == {
        ("new", "failed"),
        ("regressed", "failed"),
        ("open", "waiting"),
    }


def test_what_nobody_counted_is_hatched(get: Get, session: Session) -> None:
    _count_until(session, ago(hours=5))
    at = ago(hours=7)
    failure = make_counted_failure(session, last_at=at, first_at=at)
    session.commit()
    page = soup(get(f"/lifeline/failures/{failure.id}").text)
    (gap,) = page.select('[aria-labelledby="trend"] svg .uncounted')
    assert 45 < float(str(gap["width"])) < 60  # 5 of 24 hours of 256
    assert "not counted" in _panel(page, "trend")


def test_a_resolved_an_ignored_and_a_regressed_failure_say_so(get: Get, session: Session) -> None:
    deploy = make_deploy(session)
    decided = {"decided_at": ago(minutes=1), "decided_by": "ada", "decided_reason": "it is fixed"}

    def say(**values: Any) -> str:
        failure = make_counted_failure(session, **values)
        session.commit()
        page = soup(get(f"/lifeline/failures/{failure.id}").text)
        return f"{_words(page.select_one('.chip.big'))}: {_words(page.select_one('.say strong'))}"

    resolved = {"state": "resolved", **decided}
    assert say(**resolved, resolved_in=deploy.id) == "resolved: It is resolved in deploy 2026.11.3."
    assert say(**resolved, resolved_after=deploy.id) == (
        "resolved: It is resolved in the next deploy."
    )
    assert say(**resolved) == "resolved: It is resolved in the workers that started since."
    ignored = {"state": "ignored", "number": 5, **decided}
    assert say(**ignored, ignored_rate=3) == (
        "ignored: It is ignored until more than 3 attempts fail in an hour."
    )
    assert say(**ignored, ignored_until_number=8) == (
        "ignored: It is ignored until 3 more attempts failed."
    )
    assert say(**ignored, ignored_until=ago(hours=-2)).startswith("ignored: It is ignored until 20")
    assert say(regressed_at=ago(minutes=1), regressed_in=deploy.id) == (
        "regressed: It was resolved, and failed again in deploy 2026.11.3."
    )


def test_decisions_and_incidents_are_shown(get: Get, session: Session, access: Access) -> None:
    failure = make_counted_failure(session)
    subject = f"failure/{failure.id}"
    incident = make_incident(session, subject=subject)
    sequence = make_event(session, action="failure.resolve", subject=subject, targets=[subject])
    session.commit()
    path = f"/lifeline/failures/{failure.id}"
    page = soup(get(path).text)
    assert f"/lifeline/incidents/{incident.id}" in str(page.select_one('[aria-labelledby="facts"]'))
    assert f"/audit/{sequence}" in str(page.select_one('[aria-labelledby="decided"]'))
    access.held.discard("audit.view")
    assert "the vendor times out" not in get(path).text


@pytest.mark.parametrize(
    ("action", "form", "says"),
    [
        ("resolve", {"deploy": "next"}, "resolved in the next deploy"),
        ("resolve", {"deploy": "this"}, "resolved in deploy 2026.11.3"),
        ("ignore", {"more": "100"}, "ignored until 100 more attempts failed"),
        ("ignore", {"rate": "10"}, "more than 10 attempts fail in an hour"),
        ("ignore", {"until": "2199-01-01T00:00:00+00:00"}, "ignored until 2199-01-01"),
        ("ignore", {"until": "4h"}, "ignored until 20"),
    ],
)
def test_a_decision_leads_to_its_preview(
    client: FlaskClient, session: Session, action: str, form: dict[str, str], says: str
) -> None:
    make_deploy(session)
    failure = make_counted_failure(session)
    session.commit()
    path = f"/ops/jobs/lifeline/failures/{failure.id}"
    answer = client.post(
        f"{path}/{action}",
        data={**form, "back": path},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert answer.status_code == 303
    preview = client.get(answer.location)
    assert preview.status_code == 200
    assert says in _words(soup(preview.text).select_one("main"))


def test_the_buttons_need_their_permissions(get: Get, session: Session, access: Access) -> None:
    failure = make_counted_failure(session)
    session.commit()
    path = f"/lifeline/failures/{failure.id}"
    page = soup(get(path).text)
    (button,) = page.find_all("button", string="Resolve in next deploy…")
    assert button["formaction"] == f"/ops/jobs{path}/resolve"
    assert (button["name"], button["value"]) == ("deploy", "next")
    spans = page.select('button[name="until"]')
    assert [button["value"] for button in spans] == ["4h", "1d", "7d", "30d"]
    access.held -= {"failure.resolve", "failure.ignore"}
    page = soup(get(path).text)
    assert "needs failure.resolve" in _words(page.select_one(".head .actions"))
    forms = page.select(f'form[action="/ops/jobs{path}/ignore"]')
    assert len(forms) == 3
    assert all(button.has_attr("disabled") for form in forms for button in form.select("button"))


def test_its_failed_jobs_are_retried_through_a_draft(
    get: Get, client: FlaskClient, session: Session, access: Access
) -> None:
    retried = make_job(session, "finished")
    make_attempt(session, retried, traceback=TRACEBACK)
    failure = make_counted_failure(session, [retried, *_fail(session, 3)])
    _fail(session)
    session.commit()
    path = f"/lifeline/failures/{failure.id}"
    form = draft_form(soup(get(path).text), "Retry its failed jobs…")
    draft = client.post(
        "/ops/jobs/operations/draft", data=form, headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert "Retry 3 jobs" in _words(soup(client.get(draft.location).text).h1)
    for permission in ("job.retry", "operation.start"):
        access.held -= {permission}
        buttons = soup(get(path).text).select_one(".head .actions")
        assert f"Retry its failed jobs needs {permission}" in _words(buttons)
    access.held -= {"jobs.view"}
    assert "Retry its failed jobs" not in _words(soup(get(path).text).select_one(".head .actions"))


@pytest.mark.parametrize("id_", ["0", "987654", "x", "9" * 30])
def test_there_is_no_such_failure(get: Get, id_: str) -> None:
    assert "No such failure" in get(f"/lifeline/failures/{id_}", 404).text
