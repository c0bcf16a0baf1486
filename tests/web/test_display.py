"""What a job carries is escaped, goes through the display policy, and is hidden from who may not see it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from jinja2 import UndefinedError
from markupsafe import Markup
from sqlalchemy import update
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.display import FAILED, Display
from flask_opsjobs.core.secret_patterns import mask_emails
from flask_opsjobs.core.visible_text import visible
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.web.app.display import PageDisplay, mark_hidden
from flask_opsjobs.web.app.filters import FILTERS
from flask_opsjobs.web.app.pages import _environment
from flask_opsjobs.web.audit.diff import diff
from flask_opsjobs.workflows.models import StepRecord
from tests.support.policies import ShowAll
from tests.web.conftest import Access
from tests.web.every import reads, soup
from tests.web.rows import (
    ago,
    make_attempt,
    make_counted_failure,
    make_deploy,
    make_job,
    make_loops,
    make_output,
    make_run,
    make_signal,
    make_worker,
)

MARKUP = "\"'><img src=x><script>alert(1)</script>{{ 1234 * 1234 }}</pre></table></main>"
SECRET = "hunter2-and-more"
TURNS = "\u202e\u202a\u202b\u202c\u202d\u2066\u2067\u2068\u2069\u200e\u200f\u061c"


def test_a_number_stays_with_its_unit_on_one_line() -> None:
    unbroken = FILTERS["unbroken"]
    assert unbroken("126 % of 5 min, 1.2 MB") == "126\xa0% of 5\xa0min, 1.2\xa0MB"
    assert unbroken("3 deliveries, 4 shops, 5 minutes") == "3 deliveries, 4 shops, 5 minutes"


def _carry(session: Session, text: str, names: str, *, labels: str | None = None) -> dict[str, Job]:
    """Jobs of several states that hold `text` in every field that comes from a host, `names` in names,
    and `labels`, by default `text` as well, in what is no payload.

    By ORM, since our own writers never let some of these fields hold such a text.
    """
    labels = text if labels is None else labels
    payload = {text: [text, {"deep": {"deeper": text}}], "plain": text}
    jobs = {}
    for state in ("failed", "started", "canceled", "finished", "retryable", "available"):
        job = jobs[state] = make_job(
            session,
            state,
            task=names,
            queue=names,
            lane=labels,
            args=payload,
            meta=payload,
            tags=[labels],
            error=f"{text}\nand a second line of {text}",
            dispatch_no=2,
            ended_reason=text if state in ("failed", "canceled") else None,
        )
        trace = (
            "Traceback (most recent call last):\n"
            f'  File "/app/{text}.py", line 1, in {text}\n    {text}\n'
        )
        make_attempt(
            session,
            job,
            None if state == "started" else "raised",
            worker=names,
            error=text,
            traceback=trace,
            log_tail=text,
            cause_of_death=labels,
            progress_done=1,
            progress_total=2,
            progress_note=text,
        )
    make_output(session, jobs["finished"], payload)
    make_output(session, jobs["failed"], None, omitted=text)
    worker = make_worker(session, name=names, host=names, version=names, queues=[names])
    jobs["started"].worker_id = worker.id
    make_loops(session, report=labels, error=labels, process=names)
    _carry_in_workflow(session, jobs, payload, text, names, labels)
    deploy = make_deploy(session, labels, note=labels)
    failure = make_counted_failure(
        session,
        [jobs["retryable"], jobs["failed"]],
        deploy,
        title=text,
        type=labels,
        raised_in=names,
        state="resolved",
        decided_at=ago(minutes=3),
        decided_by=labels,
        decided_reason=labels,
        resolved_in=deploy.id,
    )
    assert failure.id == 1  # as tests/web/every.py asks for
    make_counted_failure(session, title=text, task=names)
    session.commit()
    return jobs


def _carry_in_workflow(
    session: Session, jobs: dict[str, Job], payload: Any, text: str, names: str, labels: str
) -> None:
    """A run of these jobs and a wait, and a signal for it, that hold the texts."""
    wait = make_job(session, "deferred", task="opsjobs.wait", tags=[labels])
    steps = {"wait": wait.id, **{f"{names} {state}": job.id for state, job in jobs.items()}}
    run = make_run(
        session,
        steps,
        name=names,
        context=payload,
        state="canceling",
        trouble=text,
        cancel_requested_at=ago(minutes=5),
        cancel_requested_by=labels,
        cancel_reason=labels,
        on_end={"task": names},
    )
    assert run.id == 1  # as tests/web/every.py asks for
    named = {"signals": [names], "key": labels}
    session.execute(update(StepRecord).where(StepRecord.kind == "wait").values(named))
    for job in (wait, *jobs.values()):
        job.workflow_id = run.id
    make_signal(session, name=names, key=labels, payload=payload, by=labels, dedupe=labels)


def _texts(app: Flask, jobs: dict[str, Job], only: str = "") -> Iterator[str]:
    client = app.test_client()
    for _, path in [
        *reads(jobs),
        (None, f"/ops/jobs/workflows/1?step={jobs['finished'].id}"),
        (None, f"/ops/jobs/workflows/1?step={jobs['canceled'].id}"),
        (None, "/ops/jobs/jobs?limit=50"),
        (None, "/ops/jobs/jobs?state=failed"),
        (None, "/ops/jobs/lifeline/failures?state=resolved"),
    ]:
        response = client.get(path)
        assert response.status_code < 500, path
        if response.mimetype.startswith(only):
            yield response.text


def test_a_text_is_escaped_also_when_the_policy_says_that_it_is_html() -> None:
    class Trusting(ShowAll):
        def clean_text(self, text: str) -> str:
            return Markup(text)  # as a host does that takes `escape` for cleaning

    display = Display(Trusting(), may_see=True)
    for text in ("KeyError: <img src=x>", "KeyError: <img src=x> [hidden]", "<img src=x>\u202e"):
        assert "<img" not in mark_hidden(display.clean(text))
        assert type(visible(Markup(text))) is type(mask_emails(Markup(text))) is str


def test_markup_in_every_field_is_text(app: Flask, session: Session) -> None:
    jobs = _carry(session, MARKUP, MARKUP)
    seen = 0
    for text in _texts(app, jobs):
        tree = soup(text)
        assert not tree.find_all("img")
        assert all(script.get("src") for script in tree.find_all("script"))
        assert "1522756" not in tree.text
        seen += tree.text.count("alert(1)")
    assert seen > 50


def test_what_turns_a_text_around_is_written_out(app: Flask, session: Session) -> None:
    """But in what a form sends back and in files: they hold what is stored."""
    text = f"invoice {TURNS} paid"
    jobs = _carry(session, text, text)
    seen = 0
    for page in _texts(app, jobs, only="text/html"):
        tree = soup(page)
        for field in tree.select("input[value], button[value]"):
            del field["value"]
        assert not set(TURNS) & set(str(tree))
        seen += str(tree).count(ascii(TURNS)[1:-1])
    assert seen > 50
    (first, *_) = app.test_client().get("/ops/jobs/jobs.ndjson").text.splitlines()
    assert text in json.loads(first)["tags"]


def test_a_form_sends_back_what_was_typed(app: Flask) -> None:
    client = app.test_client()
    for path, name in (("jobs?error=", "error"), ("audit?q=", "q")):
        tree = soup(client.get(f"/ops/jobs/{path}a{TURNS[0]}b").text)
        (field,) = tree.select(f"main form [name={name}]")
        assert field["value"] == f"a{TURNS[0]}b"


def test_names_with_odd_characters_make_links_that_lead_somewhere(
    app: Flask, session: Session
) -> None:
    name = "a/b?c#d&e=f <g> 'h' ü 🐙 %00 \\"
    make_job(session, "failed", task=name, queue=f"queue {name}")
    session.commit()
    client = app.test_client()
    for path in ("/ops/jobs", "/ops/jobs/jobs"):
        for link in soup(client.get(path).text).select("main a[href^='/']"):
            assert client.get(str(link["href"])).status_code == 200, link


class Hides:
    """Hides keys named `deep` and the secret, wherever it stands."""

    def is_hidden_key(self, key: str) -> bool:
        return key == "deep"

    def clean_text(self, text: str) -> str:
        return text.replace(SECRET, "[hidden]")


class Raises:
    """Cannot decide."""

    def is_hidden_key(self, key: str) -> bool:
        raise RuntimeError(key)

    def clean_text(self, text: str) -> str:
        raise RuntimeError("no")


class Nonsense:
    """Answers with something else than a text."""

    def is_hidden_key(self, key: str) -> bool:
        return False

    def clean_text(self, text: str) -> Any:
        return None


class HalfACharacter(Nonsense):
    """Answers with a text that no page can carry."""

    def clean_text(self, text: str) -> Any:
        return "\ud800"


@pytest.mark.parametrize(
    "policy", [Raises(), Nonsense(), HalfACharacter()], ids=["raises", "nonsense", "surrogate"]
)
def test_a_policy_that_fails_hides_and_is_logged_once_a_page(
    policy: Any,
    make_app: Callable[..., Flask],
    session: Session,
    caplog: pytest.LogCaptureFixture,
) -> None:
    jobs = _carry(session, SECRET, "name")
    app = make_app(display=policy)
    shown = "".join(_texts(app, jobs))
    assert SECRET not in shown
    assert FAILED in shown
    caplog.clear()
    app.test_client().get(f"/ops/jobs/jobs/{jobs['failed'].id}")
    (said,) = [r for r in caplog.records if "the display policy raised" in r.message]
    assert said.message.startswith("the display policy raised: what it was asked about is hidden (")
    assert "\n" not in said.message
    assert said.exc_info is None
    assert SECRET not in said.message


@pytest.mark.parametrize("name", [name for name in FILTERS if name.startswith("shown")])
def test_a_name_that_a_template_misspells_is_an_error_and_not_hidden(name: str) -> None:
    template = _environment().from_string(f"{{{{ row.gone | {name} }}}}")
    with pytest.raises(UndefinedError):
        template.render(row=object(), display=PageDisplay(ShowAll(), may_see=True))


def test_without_payload_view_nothing_of_the_payload_is_shown(
    app: Flask, access: Access, session: Session
) -> None:
    jobs = _carry(session, SECRET, "name", labels="ours")
    access.held -= {"payload.view"}
    shown = "".join(_texts(app, jobs))
    assert SECRET not in shown
    assert "[hidden: needs payload.view]" in shown
    assert "ours" in shown


def test_a_redacted_parameter_is_said_not_to_be_stored(
    app: Flask, opsjobs: OpsJobs, session: Session
) -> None:
    @opsjobs.task(redact={"ssn"})
    def hire(name: str, ssn: str | None = None) -> None: ...

    new = make_job(session, task="hire", args={"name": "Ada"})
    old = make_job(session, task="hire", args={"name": "Ada", "ssn": SECRET})
    session.commit()
    client = app.test_client()
    assert "[not stored: redact]" in client.get(f"/ops/jobs/jobs/{new.id}").text
    shown = client.get(f"/ops/jobs/jobs/{old.id}").text
    assert "[hidden: redact]" in shown
    assert SECRET not in shown


def _display(may_see: bool = True) -> PageDisplay:
    return PageDisplay(Hides(), may_see=may_see)


@pytest.mark.parametrize(
    "value",
    [
        "[" * 900 + "]" * 900,
        "[" * 100_000 + "]" * 100_000,
        '{"n": ' + "9" * 6_000 + ', "f": 1e999, "m": -1.5E-400}',
        json.dumps(["x" * 200_000] * 3),
        json.dumps([0] * 100_000),
        json.dumps({str(number): number for number in range(50_000)}),
    ],
    ids=["deep", "too deep", "numbers", "long texts", "many", "many keys"],
)
def test_json_of_any_size_is_shown_within_bounds(value: str) -> None:
    assert len(_display().json(value)) < 200_000


def test_json_numbers_are_shown_as_they_are() -> None:
    text = '{"big": 123456789012345678901234567890, "small": 1.10}'
    assert "123456789012345678901234567890" in _display().json(text)
    assert "1.10" in _display().json(text)


def test_a_secret_is_not_revealed_by_a_cut() -> None:
    text = "x" * 200_000 + SECRET
    assert SECRET[3:] not in _display().text(text)
    assert SECRET not in _display().json(json.dumps(text))


class Counts(Hides):
    """Adds up how many characters it was asked about."""

    asked = 0

    def clean_text(self, text: str) -> str:
        self.asked += len(text)
        return super().clean_text(text)


LARGE = {
    "one text": "x y" * 350_000,
    "texts": ["x y" * 10_000] * 35,
    "numbers": list(range(150_000)),
    "keys": {f"key {number}": f"x{number}" for number in range(60_000)},
    "a key": {"x y" * 350_000: 1},
    "a number": 10**4_000,
}


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE.keys())
def test_what_is_not_shown_of_a_large_argument_is_not_cleaned(value: Any) -> None:
    policy = Counts()
    display = PageDisplay(policy, may_see=True)
    display.json(json.dumps(value))
    assert policy.asked <= 100_000
    policy.asked = 0
    before = {"cron/sync": {"args": {"value": value}}}
    diff(before, None, display, lambda _: True)
    assert policy.asked <= 200 * 6_000, "200 lines of 500 characters, and a margin for each"
    policy.asked = 0
    display.plain(json.dumps(value))
    assert policy.asked >= len(json.dumps(value)) / 2, "a file holds all of it"


def test_a_short_text_is_cleaned_once_for_a_page() -> None:
    policy = Counts()
    display = PageDisplay(policy, may_see=True)
    assert {display.name("sync"), display.label("sync"), display.line("sync")} == {"sync"}
    assert policy.asked == len("sync")
    display.text("x" * 1_000)
    display.text("x" * 1_000)
    assert policy.asked == len("sync") + 2_000, "long texts are not kept"


def test_the_page_of_a_job_with_a_large_argument_cleans_what_it_shows(
    make_app: Callable[..., Flask], session: Session
) -> None:
    job = make_job(session, "failed", args={"document": "x y" * 350_000})
    session.commit()
    policy = Counts()
    client = make_app(display=policy).test_client()
    for path in ("", "/live", "/raw"):
        policy.asked = 0
        answer = client.get(f"/ops/jobs/jobs/{job.id}{path}")
        assert "x yx yx y" in answer.text
        assert policy.asked <= 60_000, path


def test_a_file_holds_the_words_for_a_hidden_key_as_they_are() -> None:
    class Odd(Hides):
        def clean_text(self, text: str) -> str:
            return text.upper()

    display = PageDisplay(Odd(), may_see=True)
    text = '{"a": [1.50, "ü", null, {"deep": 1, "b": {}}], "c": []}'
    shown = '{"A": [1.50, "Ü", null, {"DEEP": "[hidden: key DEEP]", "B": {}}], "C": []}'
    assert display.plain(text) == shown
    assert display.plain(text, most=20) == f"{shown[:19]}…"


@pytest.mark.parametrize("around", [100, 5_000])
def test_half_a_secret_is_not_shown_wherever_a_text_is_cut(around: int) -> None:
    display = _display()
    for most in range(480, 520):
        for text in (
            "x" * 490 + SECRET + "y" * around,
            "x" * (490 + 4_000) + SECRET + "y" * around,
            SECRET * 60 + "x" * around,
            SECRET * 1_000,
        ):
            shown = display.start(text, most)
            assert len(shown) <= most
            assert SECRET[:3] not in shown
            assert (shown[-1] == "…") == (len(text.replace(SECRET, "[hidden]")) > most)
    assert display.start("short", 500) == "short"


def test_a_job_enqueued_long_ago_or_in_the_future_is_shown(app: Flask, session: Session) -> None:
    old = make_job(session, "finished", created_at=ago(days=9_000), started_at=ago(days=8_999))
    odd = make_job(session, "started", started_at=ago(hours=-2))
    session.commit()
    client = app.test_client()
    assert "24 y" not in client.get(f"/ops/jobs/jobs/{old.id}").text
    page = soup(client.get(f"/ops/jobs/jobs/{odd.id}").text)
    (running,) = [span for span in page.select(".head span") if span.text.startswith("running")]
    assert running.time["datetime"]
