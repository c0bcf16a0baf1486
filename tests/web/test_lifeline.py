"""Lifeline and the page of an incident: the sentence, the rows, the next step, and what watches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete, text
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.lifeline import queries
from flask_opsjobs.lifeline.detectors import DETECTORS, rq_dependents_stuck
from flask_opsjobs.lifeline.finding import Detector
from flask_opsjobs.lifeline.models import EvidenceRecord, LoopRun
from flask_opsjobs.overview.badges import find_badges
from flask_opsjobs.web.app.host import reading
from tests.support.clock import Clock
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import (
    ago,
    make_deploy,
    make_escalation,
    make_event,
    make_incident,
    make_integrity_check,
    make_job,
    make_loops,
    make_worker,
)

Get = Callable[..., Any]


def _words(found: Any) -> str:
    return " ".join(found.get_text(" ").split())


def _say(get: Get, path: str = "/lifeline") -> tuple[str, str]:
    say = soup(get(path).text).select_one("#part > .say")
    assert say is not None
    return str(say["data-is"]), _words(say)


def test_the_sentence_says_whether_a_person_is_needed(get: Get, session: Session) -> None:
    make_loops(session)
    make_integrity_check(session)
    session.commit()
    assert _say(get) == (
        "healthy",
        "No incident needs a person. No managed job is lost: the integrity check shows no difference.",
    )
    make_incident(session)
    cause = make_incident(session, "loop_silent")
    make_incident(session, subject="loop/fold", because_of=cause.id)
    make_incident(session, subject="loop/known", state="acknowledged")
    make_incident(session, subject="loop/past", state="resolved", severity="notice")
    session.commit()
    status, says = _say(get)
    assert status == "open"
    assert says.startswith(
        "2 incidents need a person, 1 of them is critical. No managed job is lost"
    )
    assert "1 more incident follows" in says


def test_without_the_loop_that_looks_nothing_is_called_well(get: Get, session: Session) -> None:
    make_loops(session)
    session.execute(delete(LoopRun).where(LoopRun.loop == "detect"))
    session.commit()
    status, says = _say(get)
    assert status == "open"
    assert says.startswith("Nobody looks for incidents: the loop detect does not run.")
    empty = soup(get("/lifeline").text).select_one('[aria-labelledby="incidents"] .empty')
    assert _words(empty) == "No open incident is stored, and nobody looks for new ones."


def test_rows_by_severity_with_the_next_step(get: Get, session: Session, page_clock: Clock) -> None:
    make_loops(session)
    known = make_incident(session, subject="loop/known", state="acknowledged")
    cause = make_incident(session, "loop_silent")
    follows = make_incident(session, subject="loop/fold", because_of=cause.id)
    warning = make_incident(session)
    notice = make_incident(session, subject="loop/notice", severity="notice")
    past: dict[str, Any] = {"subject": "loop/past", "resolved_at": page_clock.now}
    make_incident(session, state="resolved", severity="notice", **past)
    session.commit()
    page = soup(get("/lifeline").text)
    ids = [row.select_one("th .mute").text for row in page.select("tr[data-row]")]
    assert ids == [str(one.id) for one in (cause, warning, known)]
    groups = [_words(each) for each in page.select("tr.grp")]
    assert [group.split()[0] for group in groups] == ["critical", "warning", "acknowledged"]
    first = page.select_one("tr[data-row]")
    assert "The loop cron is silent" in first.text
    assert "Restart the loops, unless a Redis that hangs" in first.select_one(".step").text
    assert "k.lind until" in page.select("tr[data-row]")[2].text
    assert f"/lifeline/incidents/{follows.id}" in str(page.select_one("#following"))
    folded = page.select_one("#repaired")
    assert "1 repaired itself today" in _words(folded)
    assert f"/lifeline/incidents/{notice.id}" in str(folded)
    badge = page.select_one("#badge-lifeline")
    assert badge.text.startswith("2")


SECRET = "s3cr3t-canary"


class _Hiding:
    """A display policy that hides one text."""

    def is_hidden_key(self, key: str) -> bool:
        return False

    def clean_text(self, text: str) -> str:
        return text.replace(SECRET, "[hidden]")


@pytest.mark.parametrize(
    ("state", "values", "cell", "line"),
    [
        (
            "unconfigured",
            {},
            "the application has no escalation policy",
            "Escalation: opened, unconfigured.",
        ),
        ("invoked", {}, "OPS-1421 job 900003", "Escalation: opened, invoked (OPS-1421)."),
        (
            "invoked",
            {"reference": f"<b>{SECRET}"},
            "<b>[hidden] job 900003",
            "Escalation: opened, invoked (<b>[hidden]).",
        ),
        (
            "invoked",
            {"reference": None},
            "without a reference job 900003",
            "Escalation: opened, invoked.",
        ),
        (
            "failed",
            {"why": f"OSError: {SECRET}"},
            "OSError: [hidden] job 900003",
            "Escalation: opened, failed (OSError: [hidden]).",
        ),
        ("pending", {}, "its job is due or runs job 900003", "Escalation: opened, pending."),
        (
            "pending",
            {"why": "OSError: refused"},
            "the last attempt: OSError: refused job 900003",
            "Escalation: opened, pending (OSError: refused).",
        ),
    ],
)
def test_pages_and_the_command_say_what_came_of_an_escalation(
    app: Flask,
    get: Get,
    session: Session,
    state: str,
    values: dict[str, Any],
    cell: str,
    line: str,
) -> None:
    app.extensions["opsjobs"].display = _Hiding()
    incident = make_incident(session, severity="critical")
    make_escalation(session, incident, state, **values)
    session.commit()
    page = soup(get(f"/lifeline/incidents/{incident.id}").text)
    (row,) = page.select("section[aria-labelledby=escalations] tbody tr")
    event, chip, came, _ = row.select("th, td")
    assert (_words(event), _words(chip)) == ("Opened", state)
    # What is hidden is an element of its own.
    assert _letters(came) == cell.replace(" ", "")
    assert line.replace(" ", "") in _letters(soup(get("/lifeline").text))
    printed = app.test_cli_runner().invoke(args=["opsjobs", "incident", str(incident.id)]).output
    assert f"escalation, episode 1, opened: {state}" in printed
    as_json = ["opsjobs", "incident", "show", str(incident.id), "--json"]
    (told,) = json.loads(app.test_cli_runner().invoke(args=as_json).output)["escalations"]
    assert (told["event"], told["state"]) == ("opened", state)
    shown = [str(page), get("/lifeline").text, printed, repr(told)]
    assert [text for text in shown if SECRET in text or "delivered" in text] == []


def _letters(found: Any) -> str:
    return _words(found).replace(" ", "")


def test_an_incident_that_nobody_was_told_of_has_no_such_panel(get: Get, session: Session) -> None:
    incident = make_incident(session)
    session.commit()
    page = soup(get(f"/lifeline/incidents/{incident.id}").text)
    assert page.select("section[aria-labelledby=escalations]") == []


def test_tabs_and_filters_are_in_the_address(get: Get, session: Session) -> None:
    make_incident(session)
    make_incident(session, "loop_silent")
    known = make_incident(session, subject="loop/known", state="acknowledged")
    past = make_incident(session, subject="loop/past", state="resolved")
    session.commit()

    def ids(query: str) -> list[int]:
        page = soup(get(f"/lifeline?{query}").text)
        return [int(row.select_one("th .mute").text) for row in page.select("tr[data-row]")]

    assert ids("state=acknowledged") == [known.id]
    assert ids("state=ended") == [past.id]
    assert len(ids("class=loop_silent")) == 1
    assert len(ids("severity=warning")) == 1
    assert ids("state=ended&class=loop_silent") == []
    for wrong in ("state=gone", "class=nobody", "severity=loud", "after=x", "after=loud-1-1"):
        assert get(f"/lifeline?{wrong}", 422)


@pytest.mark.parametrize(("query", "state"), [("", "open"), ("state=ended", "resolved")])
def test_a_list_goes_on_by_keyset(get: Get, session: Session, query: str, state: str) -> None:
    number = queries.MOST_INCIDENTS + 3
    for each in range(number):
        class_ = "loop_failing" if each % 2 else "loop_silent"
        make_incident(session, class_, state, subject=f"loop/{each}")
    session.commit()
    seen: list[str] = []
    path: str | None = f"/lifeline?{query}"
    while path:
        page = soup(get(path).text)
        seen += [row.select_one("th .mute").text for row in page.select("tr[data-row]")]
        older = page.select_one('a[rel="next"]')
        path = older["href"].removeprefix("/ops/jobs") if older else None
    assert len(seen) == len(set(seen)) == number


def test_the_strip_hatches_what_nobody_watched(get: Get, session: Session) -> None:
    for began, ended in ((20, 15), (14, 0)):
        session.add(
            LoopRun(
                loop="detect",
                process="web-1:17",
                started_at=ago(hours=began),
                last_at=ago(hours=ended),
                every_seconds=5,
                report="looked",
            )
        )
    session.commit()
    page = soup(get("/lifeline").text)
    # From a day ago until it first ran, and the hour between.
    assert len(page.select(".loops rect.blind")) == 2
    (row,) = page.select("#loops-table tbody tr")
    assert len(row.select("time")) == 4


def test_a_loop_without_a_gap_is_not_hatched(get: Get, session: Session) -> None:
    make_loops(session, started_at=ago(days=2))
    session.commit()
    page = soup(get("/lifeline").text)
    assert page.select(".loops rect.blind") == []
    assert "All ran all the time" in page.select_one(".loops")["aria-label"]


def test_the_last_pass_of_each_loop_says_what_it_did(session: Session, get: Get) -> None:
    make_loops(session)
    session.commit()
    rows = soup(get("/lifeline").text).select("#loops-table tbody tr")
    assert rows
    assert all("dispatched 61" in _words(row) for row in rows)


def test_an_integrity_check_without_and_with_a_difference(session: Session, get: Get) -> None:
    make_loops(session)
    session.commit()
    assert "Nothing has been counted yet" in get("/lifeline").text
    make_integrity_check(session)
    session.commit()
    assert "No managed job is lost: the integrity check shows no difference." in _say(get)[1]
    panel = soup(get("/lifeline").text).select_one("[aria-labelledby=integrity]")
    assert "no difference" in _words(panel.header)
    assert [cell.text for cell in panel.select("tbody tr > *")] == [
        "default",
        "9",
        "4",
        "1",
        "1",
        "3",
        "0",
    ]
    make_integrity_check(session, queue="mail", enqueued=10, stored=8, queued_nowhere=3)
    session.commit()
    assert "The integrity check shows a difference." in _say(get)[1]
    panel = soup(get("/lifeline").text).select_one("[aria-labelledby=integrity]")
    assert _words(panel.header).endswith("− stored difference")
    assert "3 queued, but not in Redis" in _words(panel.footer)


def test_adopted_jobs_have_a_row_of_their_own(get: Get, session: Session) -> None:
    make_integrity_check(session)
    make_job(session, "queued", origin="rq")
    make_job(session, "unknown")
    session.commit()
    text_ = _words(soup(get("/lifeline").text).select_one('[aria-labelledby="integrity"]'))
    assert "Adopted RQ jobs counted apart 2 1 not ended" in text_


def test_an_incident_of_a_class_that_no_detector_declares_is_shown(
    get: Get, session: Session, client: FlaskClient, page_clock: Clock
) -> None:
    """As after a downgrade: the rows of the newer version are still there."""
    incident = make_incident(session, "comet_seen", subject="comet/7", facts={"tail": 3})
    past: dict[str, Any] = {"subject": "comet/8", "resolved_at": page_clock.now}
    make_incident(session, "comet_seen", "resolved", severity="notice", **past)
    session.commit()
    title = "Another version found an incident of the class comet_seen"
    page = soup(get("/lifeline").text)
    assert title in page.select_one("tr[data-row]").text
    assert "of the class comet seen" in page.select_one("#repaired").text
    page = soup(get(f"/lifeline/incidents/{incident.id}").text)
    assert page.h1.text.strip() == title
    assert "neither looks for it nor clears it" in page.select_one(".say").text
    assert "Comet seen" in page.select_one(".crumbs").text
    assert len(page.select(".crumbs a")) == 1
    # Nobody looks for it, so it is not called still true, and a person may resolve it.
    resolve = page.find("button", string="Resolve…")
    answer = client.post(resolve["formaction"], headers={"Sec-Fetch-Site": "same-origin"})
    assert "still true" not in client.get(answer.location).text


def test_facts_of_another_version_are_no_error(get: Get, session: Session) -> None:
    """As in a deploy that changed what a detector writes: the pages of both versions work."""
    incident = make_incident(session, "cron_missed", facts={"of": "another version"})
    session.commit()
    assert "Missed slots: facts of another version" in get("/lifeline").text
    page = soup(get(f"/lifeline/incidents/{incident.id}").text)
    assert "this one cannot read them" in page.select_one(".say").text


def test_the_search_finds_the_jobs_of_a_failure(get: Get, session: Session) -> None:
    facts = {"failure": 7, "task": "tasks.render", "type": None, "raised_in": None}
    new = make_incident(session, "failure_new", facts={**facts, "failed_jobs": 2}, affected=2)
    session.commit()
    page = soup(get(f"/lifeline/incidents/{new.id}").text)
    jobs = page.select_one('[aria-labelledby="jobs"]')
    assert jobs.a["href"] == "/ops/jobs/jobs?failure=7"
    about = page.select_one('[aria-labelledby="facts"]')
    assert about.find("a", string="7")["href"] == "/ops/jobs/lifeline/failures/7"


def test_the_jobs_behind_a_parent_are_not_sought_by_the_parents_task(
    get: Get, session: Session
) -> None:
    parent = make_job(session, "failed", origin="rq", task="mail.parent")
    child = make_job(session, "deferred", origin="rq", task="mail.child")
    row = {"rq_id": "a", "rq_place": "default", "parent": parent.id, "task": parent.task}
    found = rq_dependents_stuck._finding(
        {
            **row,
            "state": "failed",
            "ended_at": ago(),
            "dependents": [child.id],
            "number": 1,
            "is_least": False,
        }
    )
    facts = dict(found.facts)
    incident = make_incident(session, "rq_dependents_stuck", facts=facts, affected=250)
    session.commit()
    page = soup(get(f"/lifeline/incidents/{incident.id}").text)
    jobs = page.select_one('[aria-labelledby="jobs"]')
    assert "mail.child" in jobs.text
    assert "1 of 250 shown" in jobs.text
    assert "task=" not in str(jobs.select("header a"))
    assert f"behind job {parent.id} (mail.parent)" in page.h1.text


def test_what_was_deployed_just_before_is_listed(get: Get, session: Session) -> None:
    incident = make_incident(session)
    make_deploy(session, "2026.11.2", at=ago(minutes=44))
    make_deploy(session, at=ago(minutes=14), actor="ci", note="the new parser")
    make_deploy(session, "2026.11.4", at=ago(minutes=13), source="worker")
    session.commit()
    changed = soup(get(f"/lifeline/incidents/{incident.id}").text)
    lines = [_words(line) for line in changed.select('[aria-labelledby="changes"] li')]
    # Each begins with a time, and near midnight with a day.
    said = [line[line.index("2026.11.") :] for line in lines if "2026.11." in line]
    assert said == [
        "2026.11.4 was deployed by a worker that started deploy",
        "2026.11.3 was deployed by ci: “the new parser” deploy",
    ]


def test_an_incident_says_what_why_and_what_to_do(get: Get, session: Session) -> None:
    make_loops(session)
    cause = make_incident(session, "loop_silent")
    incident = make_incident(session, because_of=cause.id)
    worker = make_worker(session, started_at=ago(minutes=15))
    sequence = make_event(session, at=ago(minutes=13))
    session.commit()
    page = soup(get(f"/lifeline/incidents/{incident.id}").text)
    assert page.h1.text.strip() == "The loop stage fails"
    assert "Its last 5 passes" in page.select_one(".say strong").text
    assert f"/lifeline/incidents/{cause.id}" in str(page.select_one(".say"))
    changed = page.select_one('[aria-labelledby="changes"]')
    assert worker.name in changed.text
    assert f"/audit/{sequence}" in str(changed)
    assert "the vendor times out" in changed.text
    evidence = page.select_one('[aria-labelledby="evidence"]')
    assert "Pass failed" in evidence.text
    assert "loop_runs" in evidence.text
    assert len(page.select(".episodes .ep")) == 1
    buttons = {
        button.get("formaction", "").rpartition("/")[2] for button in page.select(".head button")
    }
    assert "acknowledge" in buttons
    assert "still true" in page.select_one(".head .actions").text
    other = soup(get(f"/lifeline/incidents/{cause.id}").text)
    assert f"/lifeline/incidents/{incident.id}" in str(
        other.select_one('[aria-labelledby="facts"]')
    )


@pytest.fixture
def repairs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the class `loop_failing` other repairs."""

    def set_repairs(*names: str) -> None:
        detector = replace(DETECTORS["loop_failing"], repairs=names)
        monkeypatch.setitem(cast("dict[str, Detector]", DETECTORS), "loop_failing", detector)

    return set_repairs


def test_repairs_are_buttons_where_they_can_be(
    get: Get,
    session: Session,
    client: FlaskClient,
    access: Access,
    repairs: Callable[..., None],
) -> None:
    repairs("worker.teach", "job.cancel", "queue.pause", "queue.set_prefetch")
    jobs = [make_job(session, queue="mail") for _ in range(2)]
    facts = {"jobs": [job.id for job in jobs], "queue": "mail"}
    incident = make_incident(session, facts=facts, affected=2)
    session.commit()
    path = f"/lifeline/incidents/{incident.id}"
    page = soup(get(path).text)
    cancel = page.find("button", string="Cancel 2 jobs…")
    assert cancel["formaction"] == "/ops/jobs/jobs/cancel"
    assert "main" in cancel["class"]
    sent = [one["value"] for one in page.select('.head input[form="actions"][name="job"]')]
    assert sent == [str(job.id) for job in jobs]
    pause = page.find("button", string="Pause queue…")
    assert pause["formaction"] == "/ops/jobs/queues/mail/pause"
    assert page.find("a", string="Set prefetch…")["href"] == "/ops/jobs/queues/mail"
    # What is only named comes after all buttons of repairs.
    said = _words(page.select_one(".actions"))
    assert said.index("Set prefetch…") < said.index("worker.teach comes with a later version")
    shown = page.select_one('[aria-labelledby="jobs"]')
    assert [row.text.strip() for row in shown.select("tbody th")] == sent
    # All are listed, and a search would find others too.
    (selected,) = shown.select("header a")
    assert _words(selected) == "Select all 2"
    assert selected["href"] == f"/ops/jobs/jobs?selected=all&incident={incident.id}#selected"
    bar = soup(client.get(selected["href"].partition("#")[0]).text).select_one("#selected")
    assert "All 2 that match are selected" in _words(bar)
    # What the button sends is a plan for both jobs.
    answer = client.post(
        cancel["formaction"], data={"job": sent}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert "Cancel 2 jobs" in client.get(answer.location).text
    # A list leads to the page that has this button.
    (row,) = soup(get("/lifeline").text).select("tr[data-row]")
    assert row.select_one(".step a")["href"] == f"/ops/jobs{path}"
    access.held.discard("job.cancel")
    assert "needs job.cancel" in soup(get(path).text).select_one(".actions button[disabled]").text


@pytest.mark.parametrize(
    ("repair", "fact", "names", "label"),
    [
        ("lease.release", "leases", ["42-3"], "Release lease…"),
        ("lease.release", "leases", ["42-3", "43-1"], "Release 2 leases…"),
        ("delivery.remove", "deliveries", ["opsjobs-42-3"], "Remove delivery…"),
        ("delivery.remove", "deliveries", ["opsjobs-42-3", "opsjobs-43-1"], "Remove 2 deliveries…"),
    ],
)
def test_an_incident_offers_to_repair_what_it_names(
    get: Get,
    session: Session,
    client: FlaskClient,
    repairs: Callable[..., None],
    repair: str,
    fact: str,
    names: list[str],
    label: str,
) -> None:
    repairs(repair)
    incident = make_incident(session, facts={fact: names}, affected=len(names))
    session.commit()
    page = soup(get(f"/lifeline/incidents/{incident.id}").text)
    button = page.find("button", string=label)
    kind = repair.partition(".")[0]
    sent = [one["value"] for one in page.select(f'.head input[form="actions"][name="{kind}"]')]
    assert sent == (names if len(names) > 1 else [])
    headers = {"Sec-Fetch-Site": "same-origin"}
    answer = client.post(button["formaction"], data={kind: sent}, headers=headers)
    said = client.get(answer.location).text
    assert all(name in said for name in names)
    assert "Nothing to do" in said


@pytest.mark.parametrize(
    ("facts", "search"),
    [
        ({"failure": 7}, "jobs of this failure /ops/jobs/jobs?failure=7"),
        ({"batch": 7}, "jobs of this batch /ops/jobs/jobs?batch=7"),
        ({"workflow": 7}, "jobs of this workflow /ops/jobs/jobs?workflow=7"),
        ({"worker": "web-1", "jobs": [1]}, "jobs of this worker /ops/jobs/jobs?worker=web-1"),
        ({"queue": "mail"}, "jobs of this queue /ops/jobs/jobs?queue=mail"),
        (
            {"jobs": [1], "task": "t", "queue": "mail"},
            "jobs of this task in this queue /ops/jobs/jobs?task=t&queue=mail",
        ),
    ],
)
def test_a_search_finds_the_jobs_that_are_not_listed(
    get: Get, session: Session, facts: dict[str, Any], search: str
) -> None:
    incident = make_incident(session, facts=facts, affected=2)
    session.commit()
    link, selected = soup(get(f"/lifeline/incidents/{incident.id}").text).select("#jobs ~ .push a")
    assert f"{_words(link)} {link['href']}" == f"Search the {search}"
    assert _words(selected) == "Select all of them"
    fields = link["href"].partition("?")[2]
    assert selected["href"] == f"/ops/jobs/jobs?selected=all&{fields}#selected"


def test_it_leads_to_what_it_is_about(get: Get, session: Session) -> None:
    facts = {"failure": 7, "parent": 41, "queue": "mail"}
    incident = make_incident(session, facts=facts)
    session.commit()
    facts_ = soup(get(f"/lifeline/incidents/{incident.id}").text).select_one("#facts").parent.parent
    links = {link["href"].removeprefix("/ops/jobs") for link in facts_.select("dd a")}
    assert links == {"/lifeline/failures/7", "/jobs/41", "/queues/mail"}


def test_evidence_shows_times_as_times_and_nothing_that_is_not_known(
    get: Get, session: Session
) -> None:
    incident = make_incident(session)
    seen = {"due_at": "2026-11-25T14:02:10.123456+00:00", "trouble": None, "jobs": [3, 4]}
    evidence = EvidenceRecord(
        incident_id=incident.id,
        episode=1,
        kind="first_due",
        first_at=ago(),
        last_at=ago(),
        source="detect",
        facts=seen,
    )
    session.add(evidence)
    session.commit()
    rows = soup(get(f"/lifeline/incidents/{incident.id}").text).select("#evidence ~ * th, tbody th")
    (row,) = [row for row in rows if "First due" in row.text]
    assert _words(row) == "First due jobs 3, 4, due at 2026-11-25 14:02:10"
    assert row.time["datetime"] == "2026-11-25T14:02:10Z"


def test_a_moment_in_a_sentence_follows_the_chosen_zone(get: Get, session: Session) -> None:
    incident = make_incident(session, "worker_missing")
    session.commit()
    for path in ("/lifeline", f"/lifeline/incidents/{incident.id}", ""):
        sentence = soup(get(path).text).find("time", datetime="2026-11-25T14:00:00Z")
        assert sentence["data-as"] == "clock", path


def test_a_command_in_a_sentence_is_code(get: Get, session: Session) -> None:
    incident = make_incident(session, "redis_away", facts={"has_plain_workers": True})
    session.commit()
    for path in ("/lifeline", f"/lifeline/incidents/{incident.id}"):
        assert soup(get(path).text).find("code", string="rq worker") is not None, path


def test_an_incident_says_what_it_affects(get: Get, session: Session) -> None:
    facts = {"cron": "close_day", "slots": 3, "last_at": "2026-11-25T14:00:00+00:00", "why": ""}
    incident = make_incident(session, "cron_missed", facts=facts, affected=3)
    session.commit()
    assert "3 slots affected" in _words(
        soup(get(f"/lifeline/incidents/{incident.id}").text).select_one(".lead")
    )
    assert "3 slots" in _words(soup(get("/lifeline").text).select_one("tr[data-row]"))


def test_more_jobs_than_one_plan_takes_are_named(
    get: Get, session: Session, repairs: Callable[..., None]
) -> None:
    repairs("job.cancel")
    incident = make_incident(session, facts={"jobs": list(range(1, 102))})
    session.commit()
    head = soup(get(f"/lifeline/incidents/{incident.id}").text).select_one(".head .actions")
    assert "Cancel more than 100 jobs" in head.text
    assert head.find("button", string="Cancel 101 jobs…") is None


def test_a_runbook_is_linked(
    get: Get, session: Session, make_app: Callable[..., Flask], opsjobs: OpsJobs, access: Access
) -> None:
    runbooks = {"loop_failing": "https://wiki.example/loops"}
    app = make_app(opsjobs=opsjobs, access=access, OPSJOBS_RUNBOOKS=runbooks)
    incident = make_incident(session)
    session.commit()
    answer = app.test_client().get(f"/ops/jobs/lifeline/incidents/{incident.id}")
    assert 'href="https://wiki.example/loops"' in answer.text


def test_a_runbook_that_is_declared_comes_before_an_address(
    session: Session, make_app: Callable[..., Flask], opsjobs: OpsJobs, access: Access
) -> None:
    runbooks = {"loop_failing": "https://wiki.example/loops"}
    app = make_app(opsjobs=opsjobs, access=access, OPSJOBS_RUNBOOKS=runbooks)
    opsjobs.runbook("loop_failing", title="Restart the loops")
    incident = make_incident(session)
    session.commit()
    answer = app.test_client().get(f"/ops/jobs/lifeline/incidents/{incident.id}")
    assert "Restart the loops" in answer.text
    assert "https://wiki.example/loops" not in answer.text


def test_who_may_not_see_the_audit_sees_no_decision(
    get: Get, session: Session, access: Access
) -> None:
    incident = make_incident(session)
    make_event(session, at=ago(minutes=10))
    session.commit()
    access.held.discard("audit.view")
    assert "the vendor times out" not in get(f"/lifeline/incidents/{incident.id}").text


def test_one_that_is_over_has_no_buttons(get: Get, session: Session) -> None:
    incident = make_incident(session, state="resolved")
    session.commit()
    page = soup(get(f"/lifeline/incidents/{incident.id}").text)
    assert page.select("#part .head button") == []
    assert page.select_one('[aria-labelledby="acknowledge"]') is None
    assert "resolved" in page.select_one(".chip.big").text
    say = _words(page.select_one("#part > .say"))
    assert say.startswith("It cleared by itself ")
    assert "While it was open: Its last 5 passes in process web-1:17 failed" in say


@pytest.mark.parametrize("id_", ["0", "987654", "x", "9" * 30])
def test_there_is_no_such_incident(get: Get, id_: str) -> None:
    assert "No such incident" in get(f"/lifeline/incidents/{id_}", 404).text


def test_acknowledge_leads_to_its_preview_and_back(get: Get, session: Session, client: Any) -> None:
    incident = make_incident(session)
    session.commit()
    path = f"/ops/jobs/lifeline/incidents/{incident.id}"
    answer = client.post(
        f"{path}/acknowledge",
        data={"until": "1h", "back": path},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert answer.status_code == 303
    preview = client.get(answer.location)
    assert preview.status_code == 200
    assert "Acknowledge incident" in preview.text


def test_the_badge_counts_what_a_person_must_see(app: Flask, session: Session) -> None:
    cause = make_incident(session, "loop_silent")
    make_incident(session)
    make_incident(session, subject="loop/a", because_of=cause.id)
    make_incident(session, subject="loop/b", severity="notice")
    make_incident(session, subject="loop/c", state="acknowledged")
    session.commit()
    with app.app_context(), reading() as read:
        badge = find_badges(read.session, read.now, 30)["lifeline"]
    assert (badge.number, badge.status) == (2, "critical")
    session.execute(
        text(
            "UPDATE opsjobs.incidents SET state = 'resolved', resolved_at = now(),"
            " resolved_by = 'cleared' WHERE id = :id"
        ),
        {"id": cause.id},
    )
    session.commit()
    with app.app_context(), reading() as read:
        badge = find_badges(read.session, read.now, 30)["lifeline"]
    assert (badge.number, badge.status) == (2, "warned")
