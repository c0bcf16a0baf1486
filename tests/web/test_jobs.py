"""The list of jobs: tabs, filters, pages by keyset, and what nonsense in its address is answered with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from flask_opsjobs import OpsJobs
from flask_opsjobs.jobs import queries
from flask_opsjobs.jobs.lifecycle import MEANINGS, STATES
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.search.filter import QUALIFIERS, JobFilter
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import ago, make_attempt, make_entry, make_job, make_limiter, make_worker

Get = Callable[..., Any]


def _ids(text: str) -> list[int]:
    return [int(link.text) for link in soup(text).select("table.jobs tbody th a")]


def _link(text: str, rel: str) -> str | None:
    found = soup(text).select_one(f"a[rel={rel}]")
    return None if found is None else str(found["href"])


def _tabs(text: str) -> dict[str, str]:
    tabs = soup(text).select("nav.tabs a")
    return {tab.text.split()[0]: tab.select_one("b").text for tab in tabs}


def test_the_newest_come_first_in_every_state(get: Get, jobs: dict[str, Job]) -> None:
    text = get("/jobs").text
    assert _ids(text) == sorted((job.id for job in jobs.values()), reverse=True)
    assert _tabs(text) == {"All": str(len(STATES)), **dict.fromkeys(STATES, "1")}


@pytest.mark.parametrize("state", STATES)
def test_a_tab_shows_its_state_and_counts_all(state: str, get: Get, jobs: dict[str, Job]) -> None:
    text = get(f"/jobs?state={state}").text
    assert _ids(text) == [jobs[state].id]
    assert _tabs(text)["All"] == str(len(STATES))
    current = soup(text).select_one("nav.tabs [aria-current]")
    assert current.text.split()[0] == state
    assert current["title"] == MEANINGS[state]


@pytest.fixture
def many(session: Session) -> list[int]:
    """The ids of 60 jobs, newest first, every third of them in queue mail."""
    made = [make_job(session, queue="mail" if n % 3 == 0 else "crm") for n in range(60)]
    session.commit()
    return sorted((job.id for job in made), reverse=True)


def test_pages_follow_one_another_both_ways_and_miss_nothing(
    client: FlaskClient, many: list[int]
) -> None:
    seen, path = [], "/ops/jobs/jobs"
    pages = []
    while path:
        text = client.get(path).text
        pages.append(text)
        seen += _ids(text)
        path = _link(text, "next") or ""
    assert seen == many
    assert [len(_ids(page)) for page in pages] == [25, 25, 10]
    back = client.get(_link(pages[2], "prev")).text
    assert _ids(back) == _ids(pages[1])
    top = client.get(_link(back, "prev")).text
    assert _ids(top) == _ids(pages[0])
    assert _link(top, "prev") is None


def test_a_page_keeps_its_place_while_jobs_are_enqueued(
    client: FlaskClient, session: Session, many: list[int]
) -> None:
    older = _link(client.get("/ops/jobs/jobs").text, "next")
    for _ in range(7):
        make_job(session)
    session.commit()
    text = client.get(older).text
    assert _ids(text) == many[25:50]
    # Back at the top: whole, although 7 of it are new.
    assert len(_ids(client.get(_link(text, "prev")).text)) == 25


def test_the_filter_goes_along_to_other_pages_tabs_and_sizes(
    client: FlaskClient, many: list[int]
) -> None:
    mail = (
        many[2::3] if many[2] % 3 == many[-1] % 3 else [id for id in many if id % 3 == many[-1] % 3]
    )
    text = client.get("/ops/jobs/jobs?queue=mail&limit=50").text
    assert _ids(text) == mail
    links = [str(a["href"]) for a in soup(text).select("nav.tabs a, nav.seg a")]
    assert all("queue=mail" in link for link in links)
    assert _tabs(text)["available"] == "20"
    text = client.get("/ops/jobs/jobs?queue=crm").text
    assert set(_ids(client.get(_link(text, "next")).text)).isdisjoint(mail)


@pytest.mark.parametrize(
    "query",
    [
        "before=zzzz",
        "before=",
        "before=%00%FF",
        "before=" + "A" * 27,
        "before=AAAAAAAAAAE",
        "after=1",
        "before=1&after=1",
    ],
)
def test_a_forged_cursor_is_refused(query: str, client: FlaskClient, many: list[int]) -> None:
    response = client.get(f"/ops/jobs/jobs?{query}")
    if query == "before=":
        assert response.status_code == 200
        return
    assert response.status_code == 422
    assert query.split("=")[0] in soup(response.text).main.text


def test_a_cursor_of_another_filter_direction_or_secret_is_refused(
    client: FlaskClient, make_app: Callable[..., Flask], many: list[int]
) -> None:
    older = _link(client.get("/ops/jobs/jobs").text, "next")
    assert older is not None
    assert client.get(older + "&queue=mail").status_code == 422
    assert client.get(older.replace("before", "after")).status_code == 422
    other = make_app(SECRET_KEY="rotated").test_client()
    assert other.get(older).status_code == 422
    fallback = make_app(SECRET_KEY="rotated", SECRET_KEY_FALLBACKS=["only for tests"])
    assert fallback.test_client().get(older).status_code == 200
    # The size of a page is no condition.
    assert client.get(older + "&limit=50").status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/jobs?limit=1000000000", 422, "limit: a page has 25, 50, 100 jobs"),
        ("/jobs?state=nonsense", 422, "state: there is no state"),
        ("/jobs?q=args..id:42", 422, "args..id: write args.name:value"),
        ("/jobs?q=colour:red", 422, "colour: cannot be searched"),
        ("/jobs?q=hello", 200, "No job matches"),
        ("/jobs/live?q=hello", 200, "No job matches"),
        ("/jobs?q=hello&endpoint=x", 422, "endpoint: cannot be searched"),
        ("/jobs?q=-", 422, "'-' needs a word or a term"),
        ("/jobs?q=a+OR", 422, "OR joins the terms before and after it"),
        ("/jobs?q=duration:%3E1e999", 422, "cannot read '>1e999'; write >5s"),
        ("/jobs?q=created:2026-11-03..2026-11-02", 422, "ends before it begins"),
        ("/jobs?q=" + "task:a+OR+" * 1_000 + "b", 414, "longer than any we make"),
        ("/jobs?q=" + "a+OR+" * 150 + "b", 422, "at most 100 terms can be searched"),
        ("/jobs.csv?limit=1000000000", 422, "limit: a page has 25, 50, 100 jobs"),
        ("/jobs.csv?before=x", 422, "before: this mark of a page"),
        ("/jobs.ndjson?" + "x" * 1_000_000, 414, "longer than any we make"),
        ("/jobs?row=1", 422, "row: cannot be searched"),  # only the audit has it
        ("/jobs?queue=a%00b", 422, "queue: holds a control character"),
        ("/jobs?q=%00", 422, "search: holds a control character"),
        ("/jobs?queue=%FF%FE", 200, "No job matches"),
        ("/jobs?" + "x" * 1_000_000, 414, "longer than any we make"),
        ("/jobs/live?" + "x" * 1_000_000, 414, "longer than any we make"),
        ("/jobs/abc", 404, "no job abc"),
        ("/jobs/-1", 404, "no job -1"),
        ("/jobs/1.0", 404, "no job 1.0"),
        ("/jobs/0", 404, "no job 0"),
        ("/jobs/9223372036854775807", 404, "no job"),
        ("/jobs/9223372036854775808", 404, "no job"),
        ("/jobs/" + "9" * 10_000, 404, "no job 999"),
        ("/jobs/%D9%A1", 404, "no job"),  # a digit, but not one of ours
        ("/jobs/1/live/more", 404, "nothing at this address"),
        ("/jump?to=hello", 404, "neither the id of a job, nor an RQ id"),
        ("/jump?to=" + "9" * 3_000, 404, "neither the id of a job"),
        ("/jump?to=%00", 404, "neither the id of a job"),
        ("/jump?to=%3Cb%3Ebold", 404, "'<b>bold' is neither"),
        ("/jump", 422, "neither an id nor a name"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_nonsense_is_answered_with_what_is_wrong(
    path: str, status: int, said: str, get: Get
) -> None:
    assert said in soup(get(path, status).text).text


def test_jump_goes_to_a_job_by_its_id_and_by_its_rq_id(get: Get, jobs: dict[str, Job]) -> None:
    job = jobs["failed"]
    for word in (f" {job.id} ", f"opsjobs-{job.id}-7"):
        response = get("/jump", 303, query_string={"to": word})
        assert response.location == f"/ops/jobs/jobs/{job.id}"


def test_jump_goes_to_a_worker_and_to_a_queue_by_name(get: Get, session: Session) -> None:
    make_job(session, task="send mail", queue="crm")
    session.commit()
    for word, box in (("send mail", 'task:"send mail"'), ("crm", "queue:crm")):
        path = get("/jump", 303, query_string={"to": word}).location
        assert soup(get(path.removeprefix("/ops/jobs")).text).select_one("#q")["value"] == box


def test_jump_goes_to_the_page_of_a_declared_task(
    get: Get, opsjobs: OpsJobs, access: Access
) -> None:
    @opsjobs.task(name="send_letters")
    def send() -> None: ...

    def find() -> str:
        location: str = get("/jump", 303, query_string={"to": "send_letters"}).location
        return location

    assert find() == "/ops/jobs/tasks/send_letters"
    access.held -= {"tasks.view"}
    assert find().startswith("/ops/jobs/jobs?q=task")


def test_jump_goes_to_what_forensics_know_by_a_name(
    get: Get, session: Session, access: Access
) -> None:
    make_worker(session, name="web-1:9")
    make_entry(session, job := make_job(session, queue="nightly"))
    job.queue = "mail"
    make_limiter(session, "vendor-api")
    session.commit()
    subjects = {
        "web-1:9": "worker/web-1:9",
        "nightly": "cron/nightly",
        "vendor-api": "limiter/vendor-api",
        "incident/7": "incident/7",
    }
    for word, subject in subjects.items():
        path = get("/jump", 303, query_string={"to": word}).location
        assert path == f"/ops/jobs/forensics/{subject}"
    access.held -= {"limiters.view"}
    get("/jump?to=vendor-api", 404)
    access.held -= {"forensics.view"}
    get("/jump?to=web-1:9", 404)


@pytest.mark.parametrize(
    "search", ["tag:eu state:failed", "-queue:mail", "args.id:7", "refused created:never"]
)
def test_jump_goes_to_the_jobs_of_a_search(get: Get, search: str) -> None:
    found = get("/jump", 303, query_string={"to": search}).location
    assert unquote_plus(found) == f"/ops/jobs/jobs?q={search}"


@pytest.mark.parametrize("text", ["queue: mail", "error: timeout", '"tag:eu"', "zone:UTC"])
def test_jump_takes_no_other_text_for_a_search(get: Get, text: str) -> None:
    get("/jump", 404, query_string={"to": text})


def test_jump_goes_to_a_name_that_looks_like_a_search(get: Get, session: Session) -> None:
    make_worker(session, name="tag:9")
    session.commit()
    found = get("/jump", 303, query_string={"to": "tag:9"}).location
    assert found == "/ops/jobs/forensics/worker/tag:9"


def test_what_jump_does_not_know_may_be_searched(get: Get, jobs: dict[str, Job]) -> None:
    links = soup(get("/jump?to=GatewayTimeout", 404).text).select("main .say a")
    assert [link.text for link in links] == ["tag:GatewayTimeout", "error:GatewayTimeout"]
    found = get(str(links[1]["href"]).removeprefix("/ops/jobs")).text
    assert (
        _ids(found)
        == [jobs["failed"].id, jobs["retryable"].id][
            :: 1 if jobs["failed"].id > jobs["retryable"].id else -1
        ]
    )


def test_errors_are_offered_only_to_whom_may_search_them(
    get: Get, jobs: dict[str, Job], access: Access
) -> None:
    access.held -= {"payload.view"}
    for path, status in (("/jobs?q=GatewayTimeout", 422), ("/jump?to=GatewayTimeout", 404)):
        (link,) = soup(get(path, status).text).select("main [href*=GatewayTimeout].mono")
        assert link.text == "tag:GatewayTimeout"
        get(str(link["href"]).removeprefix("/ops/jobs"))


def test_a_word_alone_becomes_what_it_names(get: Get, jobs: dict[str, Job]) -> None:
    def to(box: str, **more: str) -> str:
        location: str = get("/jobs", 303, query_string={"q": box, **more}).location
        return unquote_plus(location.removeprefix("/ops/jobs/jobs"))

    job_id = jobs["failed"].id
    assert to(str(job_id)) == to(f"opsjobs-{job_id}-3") == f"/{job_id}"
    assert to("send_invoice") == "?q=task:send_invoice"
    assert to("created:<2h default", state="failed") == "?state=failed&q=created:<2h queue:default"
    assert to(f"queue:default {job_id}") == f"?q=queue:default id:{job_id}"
    # The times keep the zone in which they were typed.
    berlin = "?q=created:today queue:default&zone=Europe/Berlin"
    assert to("created:today default", zone="Europe/Berlin") == berlin
    field = "?created=today&zone=Europe/Berlin&q=queue:default"
    assert to("default", created="today", zone="Europe/Berlin") == field
    # All that match stay selected.
    assert to("default", selected="all") == "?q=queue:default&selected=all"


def test_jobs_are_found_by_when_they_were_enqueued(session: Session, get: Get) -> None:
    # Ids grow with time, but for a host whose clock is 30 s behind.
    made = {
        name: make_job(session, task=name, created_at=ago(minutes=minutes)).id
        for name, minutes in (
            ("old", 600),
            ("older", 130),
            ("edge", 119),
            ("behind", 119.5),
            ("new", 5),
            ("now", 0),
        )
    }
    session.commit()
    within = [made[name] for name in ("now", "new", "behind", "edge")]
    assert _ids(get("/jobs?created=<2h").text) == within
    assert _ids(get("/jobs?created=>2h").text) == [made["older"], made["old"]]
    assert _ids(get("/jobs?q=created:<2h task:new").text) == [made["new"]]
    assert _ids(get("/jobs?created=<99999d").text) == sorted(made.values(), reverse=True)
    assert _ids(get("/jobs?created=>99999d").text) == []
    assert _tabs(get("/jobs?created=<2h").text)["available"] == "4"


def test_ids_with_gaps_are_searched_in_time(session: Session) -> None:
    for number in range(200):
        make_job(session, id=number**3 + 1, created_at=ago(minutes=200 - number))
    now = ago()
    for minutes in (0, 1, 50, 199, 250):
        page = queries.page_of_jobs(
            session, JobFilter.from_query([("created", f"<{minutes}m"), ("limit", "100")]), now
        )
        # They are a little more than 1, 2, … 200 minutes old.
        assert len(page.rows) == min(100, max(0, minutes - 1))


def test_counts_say_how_they_are_known(session: Session, get: Get) -> None:
    from tests.test_query_plans import fill

    fill(session, queue="mail", finished=12_000)
    fill(session, queue="crm", available=10_001, scheduled=10_000)
    session.commit()
    tabs = _tabs(get("/jobs").text)
    # Postgres' statistics are within 5 % for a big state, and differ from one ANALYZE to the next.
    mark, _, number = tabs["finished"].partition(" ")
    assert mark == "≈"
    assert abs(int(number.replace(",", "")) - 12_000) <= 600
    assert tabs["available"] == "10,000+"
    assert tabs["scheduled"] == "10,000"
    assert tabs["failed"] == "0"
    tabs = _tabs(get("/jobs?queue=crm").text)
    assert tabs["available"].endswith("+") or tabs["scheduled"].endswith("+")


def test_a_row_says_the_one_thing_that_matters(session: Session, get: Get) -> None:
    started = make_job(session, "started", started_at=ago(minutes=3, seconds=5))
    make_attempt(
        session, started, None, progress_done=120, progress_total=400, progress_note="rows"
    )
    make_job(session, "failed", error="GatewayTimeout: none\nand more", attempt=5)
    make_job(session, "canceled", ended_reason="superseded")
    later = make_job(session, "scheduled", due_at=ago(minutes=-7, seconds=-30))
    make_job(
        session, "finished", started_at=ago(minutes=12), ended_at=ago(minutes=11, seconds=59.1)
    )
    session.commit()
    lines = soup(get("/jobs").text).select("tbody tr")
    rows = [" ".join(row.text.split()) for row in lines]
    finished, scheduled, canceled, failed, running = rows
    assert "ran 900 ms" in finished
    assert "due " in scheduled
    assert _moment(lines[1], "ago") == f"{later.due_at:%Y-%m-%dT%H:%M:%SZ}"
    assert canceled.endswith("superseded")
    assert failed.endswith("GatewayTimeout: none")
    assert "5 of 5" in failed
    assert _moment(lines[4], "for") == f"{started.started_at:%Y-%m-%dT%H:%M:%SZ}"
    assert running.endswith("120 of 400 rows")


def _moment(row: Any, words: str) -> str:
    """The moment in a row that the browser says in these words."""
    return str(row.select_one(f"time[data-as={words}]")["datetime"])


def test_a_list_says_who_has_taken_a_job(session: Session, get: Get) -> None:
    worker = make_worker(session, name="wk-eu-1")
    make_job(session, "queued")
    make_job(session, "queued", reserved_by=worker.id)
    session.commit()
    notes = soup(get("/jobs").text).select("table.jobs tbody td.fill")
    assert [note.text.strip() for note in notes] == ["taken by worker wk-eu-1", "queued"]


def test_an_empty_list_says_what_will_be_here(get: Get) -> None:
    assert "No job has been enqueued yet" in get("/jobs").text
    assert "No job matches" in get("/jobs?queue=nowhere").text


def test_the_form_offers_what_there_is(get: Get, jobs: dict[str, Job]) -> None:
    tree = soup(get("/jobs?q=queue:default created:<2h").text)
    assert [option.text for option in tree.select("#f-queue option[selected]")] == ["default"]
    assert tree.select_one("#q")["value"] == "queue:default created:<2h"
    assert [a.text.split()[0] for a in tree.select(".hints a")] == ["queue:default", "created:<2h"]
    assert "queue" not in str(tree.select(".hints a")[0]["href"])


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ("task:charge colour:red", "colour: cannot be searched"),
        ("created:2 days", "is not a time or a duration"),
        ("task:charge priority:99", "priority: '99' is no priority; they are 0 (first) to 9"),
        ("charge -", "'-' needs a word or a term"),
    ],
)
def test_a_search_that_is_wrong_keeps_its_text_and_has_the_fault_below_the_box(
    box: str, said: str, get: Get, jobs: dict[str, Job]
) -> None:
    tree = soup(get("/jobs", 422, query_string={"q": box, "state": "failed"}).text)
    search = tree.select_one("#q")
    assert (search["value"], search["aria-invalid"]) == (box, "true")
    fault = tree.find(id=search["aria-describedby"])
    assert said in fault.text
    assert fault.find_previous("input", type="search") is search
    assert tree.select_one(".find input[name=state]")["value"] == "failed"
    assert tree.select_one("#live") is None


@pytest.mark.parametrize("path", ["/jobs", "/audit"])
def test_a_search_that_is_too_long_keeps_its_text_and_is_told_to_be_shortened(
    path: str, get: Get
) -> None:
    box = "tag:eu OR " * 1_000 + "tag:us"
    typed = [("q", box), ("state", "failed"), ("tag", "a"), ("tag", "b")]
    places = [(name, "1") for name in ("before", "after", "selected", "row")]
    tree = soup(get(path, 414, query_string=MultiDict([*typed, *places])).text)
    fields = [(field["name"], field["value"]) for field in tree.select(".find input")]
    assert fields == typed
    form = tree.select_one(".find form, form.find")
    assert form.get("action") is None  # the page that was asked for
    assert "Shorten the search" in form.find_previous("section").text


def test_each_term_that_can_be_searched_is_offered(get: Get, access: Access) -> None:
    def offered() -> list[str]:
        return [term.text.rstrip(":") for term in soup(get("/jobs").text).select(".hints code")]

    assert offered() == [*QUALIFIERS, "args.NAME"]
    access.held.remove("payload.view")
    assert offered() == [name for name in QUALIFIERS if name != "error"]


def test_a_state_that_no_job_has_is_not_coloured(get: Get, session: Session) -> None:
    make_job(session, "retryable")
    session.commit()
    tabs = {
        tab.text.split()[0]: tab["data-is"]
        for tab in soup(get("/jobs").text).select(".tabs a[title]")
    }
    assert (tabs["retryable"], tabs["failed"]) == ("retryable", "none")
    tabs_of_runs = soup(get("/workflows").text).select(".tabs a[title]")
    assert {tab["data-is"] for tab in tabs_of_runs} == {"none"}
    chips = soup(get("/queues/default").text).select("[aria-labelledby=depth] .chip")
    states = {chip.text.strip(): chip["data-is"] for chip in chips}
    assert (states["retryable"], states["started"]) == ("retryable", "none")
