"""The search box of the jobs page: who may ask what, what is said of what was looked at, and suggestions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.secret_patterns import clean_secrets, is_secret_key
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.search import further_queries, hit_queries
from tests.support.policies import ShowAll
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import make_failure, make_incident, make_job, make_worker

Get = Callable[..., Any]


def _ids(text: str) -> list[int]:
    return [int(link.text) for link in soup(text).select("table.jobs tbody th a")]


def test_a_search_is_in_the_box_the_fields_the_tabs_and_the_address(
    get: Get, session: Session
) -> None:
    args = {"account_id": 42, "who": "A B"}
    found = make_job(session, "failed", tags=["eu"], args=args, error="it timed out")
    make_job(session, "failed", tags=["us"], args=args, error="it timed out")
    session.commit()
    box = 'tag:eu error:"timed out" args.account_id:42 args.who:"A B"'
    text = get("/jobs", query_string={"q": box}).text
    assert _ids(text) == [found.id]
    tree = soup(text)
    assert tree.select_one("#q")["value"] == box
    assert tree.select_one("#f-args")["value"] == 'account_id:42 who:"A B"'
    assert tree.select_one("#f-error")["value"] == "timed out"
    assert tree.select_one("#f-tag")["value"] == "eu"
    assert [a.text.split(" ×")[0] for a in tree.select(".hints a")] == [
        "tag:eu",
        'error:"timed out"',
        "args.account_id:42",
        'args.who:"A B"',
    ]
    for link in tree.select("nav.tabs a, nav.seg a"):
        assert "args.account_id=42" in str(link["href"])
    gone = get(str(tree.select(".hints a")[0]["href"]).removeprefix("/ops/jobs")).text
    assert len(_ids(gone)) == 2


@pytest.mark.parametrize("box", ["args.a:1", "error:x", "error:x tag:eu"])
@pytest.mark.parametrize("path", ["/jobs", "/jobs/live", "/jobs.csv", "/jobs.ndjson"])
def test_payload_is_searched_only_by_whom_may_see_it(
    box: str, path: str, get: Get, access: Access, jobs: dict[str, Job]
) -> None:
    assert get(path, query_string={"q": box})
    access.held -= {"payload.view"}
    assert "payload.view" in get(path, 403, query_string={"q": box}).text
    assert get(path, query_string={"q": "tag:eu"})
    assert not soup(get("/jobs").text).select("#f-args, #f-error")


@pytest.mark.parametrize(
    ("box", "marked"),
    [
        ("queue:mail colour:red", "colour:red"),
        ("tag:eu -", "-"),
        ("a OR OR b", "OR"),
        ("queue:a queue:b", "queue:b"),
        ('error:"say "no""', 'error:"say'),
        ("created:2026-02-31 tag:eu", "created:2026-02-31"),
    ],
)
def test_a_mistake_is_marked_below_the_box_and_the_text_is_kept(
    box: str, marked: str, get: Get
) -> None:
    tree = soup(get("/jobs", 422, query_string={"q": box}).text)
    assert tree.select_one("#q")["value"] == box
    assert tree.select_one("#q")["aria-invalid"] == "true"
    assert tree.select_one(".find .typed").text == f"The mistake is marked: {box}"
    assert tree.select_one(".find mark").text == marked


def test_words_are_searched_in_errors_by_whom_may_see_them(
    get: Get, session: Session, access: Access
) -> None:
    found = make_job(session, "failed", error="GatewayTimeout: it timed out")
    other = make_job(session, "failed", error="KeyError: 'x'")
    session.commit()
    assert _ids(get("/jobs", query_string={"q": 'gateway "timed out"'}).text) == [found.id]
    assert _ids(get("/jobs", query_string={"q": "-gateway"}).text) == [other.id]
    text = get("/jobs", query_string={"q": "gateway OR keyerror -state:finished"}).text
    assert _ids(text) == [other.id, found.id]
    links = soup(text).select(".hints a")
    assert [a.text.split(" ×")[0] for a in links] == [
        "error:gateway OR error:keyerror",
        "-state:finished",
    ]
    assert _ids(get(str(links[0]["href"]).removeprefix("/ops/jobs")).text) == [other.id, found.id]
    assert soup(text).select_one("#f-q")["value"] == (
        "error:gateway OR error:keyerror -state:finished"
    )
    access.held -= {"payload.view"}
    for box in ("-error:x", "task:a OR error:x", '"gateway"', "-args.a:1"):
        assert "payload.view" in get("/jobs", 403, query_string={"q": box}).text
    assert "'gateway' is neither" in soup(get("/jobs?q=gateway", 422).text).text


def test_times_are_read_in_the_zone_of_the_search(get: Get, session: Session) -> None:
    job = make_job(session, created_at=datetime(2026, 3, 28, 23, 30, tzinfo=UTC))
    session.commit()
    asked = {"q": "created:2026-03-29", "zone": "Europe/Berlin"}
    text = get("/jobs", query_string=asked).text
    assert _ids(text) == [job.id]
    assert soup(text).select_one("#q")["value"] == "created:2026-03-29 zone:Europe/Berlin"
    assert _ids(get("/jobs", query_string={"q": "created:2026-03-29"}).text) == []
    # The zone of the box counts, and a search without times has none.
    in_box = {"q": "created:2026-03-29 zone:Europe/Berlin", "zone": "America/New_York"}
    assert _ids(get("/jobs", query_string=in_box).text) == [job.id]
    text = get("/jobs", query_string={"q": "task:nobody", "zone": "Europe/Berlin"}).text
    assert soup(text).select_one("#q")["value"] == "task:nobody"
    assert "no time zone" in get("/jobs", 422, query_string={**asked, "zone": "Mars"}).text


class _Hides(ShowAll):
    def is_hidden_key(self, key: str) -> bool:
        return is_secret_key(key)

    def clean_text(self, text: str) -> str:
        return clean_secrets(text)


@pytest.fixture
def hiding(make_app: Callable[..., Flask], opsjobs: OpsJobs) -> Get:
    """Asks a host with a display policy and a task with a redacted parameter."""

    def pay(amount: int, token: str = "", iban: str = "", note: str = "") -> None:
        """Has secrets."""

    opsjobs.task(redact={"note"}, tags=["money", "password=x"])(pay)
    client = make_app(opsjobs=opsjobs, display=_Hides()).test_client()

    def get(path: str, status: int = 200, **options: Any) -> Any:
        response = client.get(f"/ops/jobs{path}", **options)
        assert response.status_code == status, response.text
        return response

    return get


@pytest.mark.parametrize(
    "box",
    [
        "args.token:abc",
        "args.card.cvv:123",
        "args.note:x",  # redacted
        "task:pay args.note:x",
        "task:nobody args.note:x",
        'args.amount:"password=x"',
        "error:password=hunter",
        "tag:password=x",
        "-args.token:abc",
        "task:pay OR args.note:x",
        "-error:password=hunter",
        "tag:password=*",
    ],
)
def test_what_is_hidden_cannot_be_searched(box: str, hiding: Get, session: Session) -> None:
    make_job(session, task="pay", args={"token": "abc", "note": "x"}, tags=["password=x"])
    session.commit()
    for path in ("/jobs", "/jobs.csv", "/jobs/live"):
        answer = hiding(path, 422, query_string={"q": box}).text
        assert "cannot be searched" in answer
        # The same answer, whether there is such a job or not.
        session.execute(text("DELETE FROM opsjobs.jobs"))
        session.commit()
        assert hiding(path, 422, query_string={"q": box}).status_code == 422


def test_a_secret_in_an_error_cannot_be_guessed_letter_by_letter(
    hiding: Get, session: Session
) -> None:
    make_job(session, "failed", error="LoginError: password=hunter2 refused")
    session.commit()
    for guess in ("hunter2", "unter", "error:=hunt", "unter OR task:nobody", "unter2 -queue:mail"):
        tree = soup(hiding("/jobs", query_string={"q": guess}).text)
        assert not tree.select("table.jobs")
        assert tree.select_one("nav.tabs b").text == "0"
        assert "hunter" not in hiding("/jobs.ndjson", query_string={"q": "error:refused"}).text
    for box in ("error:refused", "-unter2", "-unter3", "-nothing OR unter2"):
        assert len(_ids(hiding("/jobs", query_string={"q": box}).text)) == 1


@pytest.mark.parametrize("more", ["", " queue:default", " state:failed", " tag:eu"])
def test_more_hits_than_are_looked_at_tell_nothing_of_a_hidden_text(
    more: str, hiding: Get, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    for _ in range(5):
        make_job(session, "failed", error="LoginError: password=hunter2 refused", tags=["eu"])
    session.commit()

    def answers(guess: str) -> list[str]:
        texts = [
            hiding(path, query_string={"q": f"error:{guess}{more}"}).text
            for path in ("/jobs", "/jobs/live", "/jobs.csv", "/jobs.ndjson")
        ]
        return [text.replace(guess, "…") for text in texts]

    right, wrong = answers("unter2"), answers("unter3")
    assert right[1:] == wrong[1:]
    assert soup(right[0]).select_one("#part") == soup(wrong[0]).select_one("#part")
    assert ("More jobs match" in right[1]) == (more == " tag:eu"), "more have that tag"


def test_hidden_errors_take_no_place_from_those_that_fit(
    hiding: Get, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    shown = [make_job(session, "failed", error=f"no hunter {n}") for n in range(5)]
    for number in range(5):
        make_job(session, "failed", error=f"{number}: password=hunter2 refused")
    session.commit()
    text = hiding("/jobs?q=error:hunter").text
    assert _ids(text) == [job.id for job in shown[:1:-1]]
    assert "3 hits among the others" in text
    assert soup(text).select_one("nav.tabs b").text == "3+"
    monkeypatch.setattr(hit_queries, "MOST_HITS", 5)
    text = hiding("/jobs?q=error:hunter").text
    assert len(_ids(text)) == 5
    assert "Searched the newest" not in text
    assert soup(text).select_one("nav.tabs b").text == "5"


def test_a_policy_that_raises_lets_nothing_be_searched(
    make_app: Callable[..., Flask], session: Session
) -> None:
    class Raises(ShowAll):
        def is_hidden_key(self, key: str) -> bool:
            raise RuntimeError("no")

        def clean_text(self, text: str) -> str:
            raise RuntimeError("no")

    make_job(session, "failed", tags=["eu"], error="x")
    session.commit()
    client = make_app(display=Raises()).test_client()
    for box in ("args.a:1", "error:x", "tag:eu"):
        assert client.get("/ops/jobs/jobs", query_string={"q": box}).status_code == 422
    assert client.get("/ops/jobs/jobs?q=queue:default").status_code == 200
    assert not soup(client.get("/ops/jobs/jobs/suggest?q=tag:").text).select("[role=option]")


def test_what_was_looked_at_is_said(
    get: Get, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    monkeypatch.setattr(hit_queries, "NEWEST_ERRORS", 3)
    for _ in range(5):
        make_job(session, "failed", tags=["eu"])
    session.commit()
    text = get("/jobs?q=tag:eu").text
    assert "Searched the newest 20,000 jobs, and 3 hits among the others" in text
    assert soup(text).select_one("nav.tabs b").text == "3+"
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 3)
    said = " ".join(soup(get("/jobs?q=-queue:none").text).select_one(".say").text.split())
    assert "Searched at most 3 jobs, the newest first. Several tasks" in said
    for box, words in (
        (
            "ended:<1h",
            "Searched at most 3 jobs, those that ended last in this time. Finished, failed",
        ),
        (
            "state:failed ended:<1h",
            "Searched at most 3 jobs that are failed, those that ended last in",
        ),
        ("queue:default ended:<1h", "Searched at most 3 jobs of queue default, the newest first."),
    ):
        page = soup(get("/jobs", query_string={"q": box}).text)
        assert words in " ".join(page.select_one(".say").text.split())
    monkeypatch.setattr(hit_queries, "MOST_LISTED", 1)
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 4)
    text = get("/jobs?q=-queue:none").text
    assert "Searched until 1 hits were found, the newest first" in text
    assert len(_ids(text)) == 1
    text = get("/jobs?q=error:gateway").text
    assert "Searched the newest 3 jobs with an error" in text
    assert len(_ids(text)) == 3
    assert "Searched the newest" not in get("/jobs?q=tag:us").text
    assert "Searched the newest" not in get("/jobs?q=queue:default").text


def test_a_search_that_takes_too_long_becomes_a_page_that_says_what_to_narrow(
    make_app: Callable[..., Flask], session: Session
) -> None:
    for _ in range(3):
        make_job(session, "failed", tags=["eu"])
    session.commit()
    client = make_app(OPSJOBS_PAGE_TIMEOUT_SECONDS=0.2).test_client()
    assert client.get("/ops/jobs/jobs").status_code == 200
    # Whoever holds this lock makes every search wait for it.
    session.execute(text("LOCK TABLE opsjobs.jobs IN ACCESS EXCLUSIVE MODE"))
    for path in ("/jobs?q=tag:eu", "/jobs?q=error:x", "/jobs.csv?q=args.a:1", "/jobs.csv"):
        answer = client.get(f"/ops/jobs{path}")
        assert answer.status_code == 503
        assert "Narrow the filter" in answer.text
    session.rollback()


def _suggested(get: Get, box: str) -> list[str]:
    tree = soup(get("/jobs/suggest", query_string={"q": box}).text)
    return [str(option["data-fill"]) for option in tree.select("[role=option]")]


def test_suggestions_complete_the_last_word(hiding: Get, session: Session) -> None:
    make_job(session, task="send_invoice", queue="mail", tags=["gold", "a b", "token=abc"])
    session.commit()
    assert _suggested(hiding, "sta") == ["state:", "started:"]
    assert _suggested(hiding, "state:fa") == ["state:failed"]
    assert _suggested(hiding, "queue:mail tas") == ["queue:mail task:"]
    assert _suggested(hiding, 'tag:"a b" task:send') == ['tag:"a b" task:send_invoice']
    assert _suggested(hiding, "invoice") == ["task:send_invoice"]
    assert _suggested(hiding, "tag:") == ['tag:"a b"', "tag:gold", "tag:money"]
    assert _suggested(hiding, 'tag:"a') == ['tag:"a b"']
    assert _suggested(hiding, "args.") == ["args.amount:"]  # neither hidden nor redacted
    assert _suggested(hiding, "created:<") == ["created:<1h", "created:<1d", "created:<7d"]
    assert _suggested(hiding, "origin:r") == ["origin:rq"]
    assert _suggested(hiding, "queue:mail -sta") == ["queue:mail -state:", "queue:mail -started:"]
    assert _suggested(hiding, "attempts:>=") == ["attempts:>=3"]
    make_worker(session, name="w-token=abc")
    worker, incident = make_worker(session), make_incident(session)
    session.commit()
    assert _suggested(hiding, "worker:") == [f"worker:{worker.name}"]
    assert _suggested(hiding, "incident:") == [f"incident:{incident.id}"]
    assert len(_suggested(hiding, "")) <= 12
    for nonsense in ("\0", '"', '"""', "args.a:", "x" * 900, "tag:\0", "a:b:c", ":", " "):
        _suggested(hiding, nonsense)


def test_a_name_with_a_star_or_quotes_is_suggested_and_kept_in_its_field(
    get: Get, session: Session
) -> None:
    made = {tag: make_job(session, tags=[tag]).id for tag in ("2*3", "2x3", 'a"b', '"c"', "c")}
    session.commit()
    boxes = _suggested(get, "tag:")
    assert set(boxes) == {'tag:"2*3"', "tag:2x3", 'tag:"a""b"', 'tag:"""c"""', "tag:c"}
    found = []
    for box in boxes:
        page = soup(get("/jobs", query_string={"q": box}).text)
        again = get("/jobs", query_string={"tag": page.select_one("#f-tag")["value"]}).text
        assert _ids(again) == _ids(str(page))
        found += _ids(again)
    assert sorted(found) == sorted(made.values())
    page = soup(get("/jobs", query_string={"q": 'error:"2*3"'}).text)
    assert get("/jobs", query_string={"error": page.select_one("#f-error")["value"]})
    for link in soup(get("/jump?to=2*4", 404).text).select("main .say a"):
        assert get(str(link["href"]).removeprefix("/ops/jobs"))


def test_suggestions_name_no_arguments_to_whom_may_not_see_them(
    hiding: Get, get: Get, access: Access
) -> None:
    access.held -= {"payload.view"}
    assert _suggested(get, "args.") == []
    assert _suggested(get, "err") == []


def test_failures_are_suggested_by_what_is_shown_of_them(
    hiding: Get, get: Get, access: Access, session: Session
) -> None:
    failure = make_failure(session, title="LoginError: password=hunter2 refused", task="pay")
    session.commit()
    for box in ("failure:", "failure:refu", "refused", f"failure:{failure.id}"):
        tree = soup(hiding("/jobs/suggest", query_string={"q": box}).text)
        (option,) = tree.select("[role=option]")
        assert option["data-fill"] == f"failure:{failure.id}"
        assert "refused, in pay" in option.text
        assert "hunter" not in option.text
    assert _suggested(hiding, "unter2") == []
    access.held -= {"payload.view"}
    assert _suggested(get, "failure:") == _suggested(get, "refused") == []


def test_the_box_is_a_combobox_and_without_a_script_there_are_examples(
    get: Get, access: Access
) -> None:
    tree = soup(get("/jobs").text)
    box = tree.select_one("#q")
    assert (box["role"], box["aria-expanded"]) == ("combobox", "false")
    assert tree.find(id=box["aria-controls"])["role"] == "listbox"
    examples = [str(a["href"]) for a in tree.select(".examples a")]
    for example in examples:
        assert get(example.removeprefix("/ops/jobs")).status_code == 200
        # A link does not know in which zone the page shows times.
        here = soup(get(f"{example.removeprefix('/ops/jobs')}&zone=Europe/Berlin").text)
        assert "zone:" not in here.select_one("#q")["value"]
    access.held -= {"payload.view"}
    fewer = [str(a["href"]) for a in soup(get("/jobs").text).select(".examples a")]
    assert 0 < len(fewer) < len(examples)
    for example in fewer:
        assert get(example.removeprefix("/ops/jobs")).status_code == 200
