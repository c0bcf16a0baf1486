"""The form that enqueues a job of a task: its fields, their faults, and the preview that it leads to."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from flask.testing import FlaskClient
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs, Unique
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import Job
from tests.web.every import soup
from tests.web.rows import make_job

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
WHY: dict[str, Any] = {"actor": "tester", "reason": "because it is a test"}
Get = Callable[..., Any]
GOOD = {
    "arg.account_id": "42",
    "arg.kind": '"blue"',
    "arg.dry_run": "true",
    "arg.due": "2026-11-28T04:00",
    "arg.address": '{"street": "Main"}',
    "arg.note": "",
}


class Kind(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: int = 1


@pytest.fixture(autouse=True)
def task(opsjobs: OpsJobs) -> Any:
    """The task `send`, with a parameter of each kind."""

    def send(
        account_id: Annotated[int, Field(description="whose letters")],
        kind: Kind,
        dry_run: bool,
        due: datetime,
        address: Address | None = None,
        note: str = "hello",
        pages: Literal["all", 3] = "all",
        token: str = "",
    ) -> None:
        """Send the letters of an account.

        More is said here.
        """

    return opsjobs.task(
        queue="mail", redact={"token"}, enqueue_from_page=True, unique=Unique(until="ended")
    )(send)


def post(client: FlaskClient, path: str, data: dict[str, str]) -> Any:
    return client.post(f"/ops/jobs{path}", data=data, headers=SAME_ORIGIN)


def fields_of(form: Any) -> dict[str, str]:
    """What a form sends that nobody has filled in."""
    return {field["name"]: field.get("value", "") for field in form.select("input")}


def enqueue(client: FlaskClient, data: dict[str, str] = GOOD) -> Any:
    return post(client, "/tasks/send/enqueue", data)


def jobs(session: Session) -> list[Job]:
    session.rollback()
    return list(session.scalars(select(Job).order_by(Job.id)))


def test_the_form_has_a_field_for_each_parameter(get: Get) -> None:
    main = soup(get("/enqueue/tasks/send").text).main
    assert "Send the letters of an account." in main.text
    assert "More is said" not in main.text
    kinds = {
        field["name"]: field.get("type", field.name) for field in main.select("form [name^='arg.']")
    }
    assert kinds == {
        "arg.account_id": "number",
        "arg.kind": "select",
        "arg.dry_run": "checkbox",
        "arg.due": "datetime-local",
        "arg.address": "textarea",
        "arg.note": "text",
        "arg.pages": "select",
    }
    # Each has a label and a rule of its own; what must be filled in is said to browsers too.
    for field in main.select("form [name^='arg.']"):
        assert main.select_one(f"label[for='{field['id']}']").text == field["name"][4:]
        assert main.select_one(f"#{field['aria-describedby']}")
    required = [field["name"] for field in main.select("[required]")]
    assert required == ["arg.account_id", "arg.kind", "arg.due"]
    assert "whose letters. Required." in main.select_one("#r-arg-1").text
    assert 'Empty: "hello".' in main.select_one("#r-arg-6").text
    assert [one.text for one in main.select("#arg-7 option")] == ["the default", "all", "3"]
    assert "token: redacted, so its value is never stored" in main.text


def test_a_filled_form_leads_to_a_preview_and_enqueues_once(
    client: FlaskClient, session: Session
) -> None:
    seen = client.get(enqueue(client).headers["Location"])
    page = soup(seen.text)
    assert page.h1.text == "Enqueue a job of task send"
    rows = {
        row.th.text: row.select("td")[1].text.strip() for row in page.select("table.diff tbody tr")
    }
    assert (rows["queue"], rows["unique lock"]) == ("mail", "held by the new job")
    assert json.loads(rows["args"]) == {
        "account_id": 42,
        "kind": "blue",
        "dry_run": True,
        "due": "2026-11-28T04:00:00Z",
        "address": {"street": "Main", "number": 1},
    }
    assert "The job will wait. No live worker listens to the queue mail" in page.main.text.replace(
        "the job", "The job"
    )
    assert jobs(session) == []
    form = page.select_one("form[action$='/execute']")
    sent = fields_of(form)
    sent["reason"] = WHY["reason"]
    path = form["action"].removeprefix("/ops/jobs")
    # A double click: the second one gets the refusal of a used preview.
    first, second = post(client, path, sent), post(client, path, sent)
    assert (first.status_code, second.status_code) == (303, 409)
    (job,) = jobs(session)
    assert (job.task, job.queue, job.args["account_id"]) == ("send", "mail", 42)
    done = soup(client.get(first.headers["Location"]).text).main
    assert f"job {job.id}" in done.text
    assert "No live worker listens to the queue mail" in done.text
    # The job's page says who enqueued it.
    assert "Enqueued by tester" in soup(client.get(f"/ops/jobs/jobs/{job.id}").text).main.text
    # Filled in once more, the form leads to the refusal of the unique call.
    again = client.get(enqueue(client).headers["Location"])
    assert f"job {job.id} holds the unique lock of this call" in again.text


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"arg.account_id": ""}, 1, "account_id: is required"),
        ({"arg.account_id": "many"}, 1, "account_id: Input should be a valid integer"),
        ({"arg.kind": "green"}, 2, "kind: Input should be 'red' or 'blue'"),
        ({"arg.kind": ""}, 2, "kind: is required"),
        ({"arg.due": "tomorrow"}, 4, "due: Input should be a valid datetime"),
        ({"arg.address": "{"}, 5, "address: is not JSON"),
        ({"arg.address": "Main"}, 5, 'write a text in double quotes, as in "text"'),
        ({"arg.address": '{"number": 2}'}, 5, "address: street: is required"),
        ({"arg.address": '{"street": "a", "number": "x"}'}, 5, "number: Input should be a valid"),
        ({"arg.note": "a\0b"}, 6, "note: has a NUL character"),
        ({"arg.address": '{"street": "\\ud800"}'}, 5, "address: has one half of a surrogate pair"),
    ],
    ids=str,
)
def test_a_fault_stands_below_its_field_and_what_was_typed_is_kept(
    client: FlaskClient, session: Session, changes: dict[str, str], field: int, says: str
) -> None:
    answer = enqueue(client, GOOD | changes)
    assert answer.status_code == 422
    main = soup(answer.text).main
    assert "Nothing was enqueued." in main.select_one("form [role=alert]").text
    assert [mark.parent["id"] for mark in main.select("small [data-is=refused]")] == [
        f"r-arg-{field}"
    ]
    assert says in main.select_one(f"#r-arg-{field}").text
    assert main.select_one(f"#arg-{field}")["aria-invalid"] == "true"
    typed = GOOD | changes
    if "arg.account_id" not in changes:
        assert main.select_one("#arg-1")["value"] == "42"
    if "arg.note" not in changes:  # a parser drops NUL
        assert main.select_one("#arg-5").text == typed["arg.address"]
    if typed["arg.kind"]:
        assert main.select_one("#arg-2 option[selected]")["value"] == typed["arg.kind"]
    assert main.select_one("#arg-3").has_attr("checked")
    assert jobs(session) == []


def test_every_fault_is_shown_at_once(client: FlaskClient) -> None:
    bad = {"arg.account_id": "x", "arg.due": "x", "arg.address": "{", "arg.nope": "1"}
    main = soup(enqueue(client, GOOD | bad).text).main
    wrong = [mark.parent["id"] for mark in main.select("small [data-is=refused]")]
    assert wrong == ["r-arg-1", "r-arg-4", "r-arg-5"]


def test_a_redacted_value_that_is_sent_all_the_same_is_kept_nowhere(
    client: FlaskClient, session: Session
) -> None:
    assert enqueue(client, GOOD | {"arg.token": "sensitive"}).status_code == 303
    whole = {"args": json.dumps({"token": "sensitive"})}
    assert enqueue(client, whole).status_code == 422
    found = session.connection().exec_driver_sql("SELECT to_jsonb(p)::text FROM opsjobs.previews p")
    assert "sensitive" not in str(found.all())


@pytest.mark.parametrize("size", [400_000, 1_000_000])
def test_a_megabyte_is_refused_with_the_setting(client: FlaskClient, size: int) -> None:
    answer = enqueue(client, GOOD | {"arg.note": "x" * size})
    assert answer.status_code in (413, 422)
    assert ("OPSJOBS_MAX_ARGS_BYTES" in answer.text) == (answer.status_code == 422)


def test_without_payload_the_preview_hides_the_arguments(client: FlaskClient, access: Any) -> None:
    access.held.remove("payload.view")
    seen = client.get(enqueue(client).headers["Location"])
    assert "[hidden: needs payload.view]" in seen.text
    assert "2026-11-28T04:00" not in seen.text


def test_without_the_permission_there_is_no_form(
    client: FlaskClient, get: Get, access: Any
) -> None:
    access.held.remove("task.enqueue")
    assert "task.enqueue" in get("/enqueue/tasks/send", status=403).text
    assert enqueue(client).status_code == 403
    button = soup(get("/tasks/send").text).find(
        "button", string=lambda text: "Enqueue" in (text or "")
    )
    assert button is None or button.has_attr("disabled")
    assert "needs task.enqueue" in get("/tasks/send").text


def test_the_page_of_a_task_leads_to_its_form(get: Get, opsjobs: OpsJobs) -> None:
    page = soup(get("/tasks/send").text)
    assert page.select_one("a[href='/ops/jobs/enqueue/tasks/send']").text == "Enqueue…"
    option = page.find("dt", string="Enqueue from page").find_next("dd")
    assert option.text == "yes"
    opsjobs.task(name="plain")(_plain)
    page = soup(get("/tasks/plain").text)
    assert "Enqueue…" not in page.main.text
    assert page.find("dt", string="Enqueue from page").find_next("dd").text == "no"


def _plain() -> None:
    """Does nothing."""


def test_a_task_that_does_not_allow_it_says_why(
    client: FlaskClient, get: Get, opsjobs: OpsJobs, session: Session
) -> None:
    opsjobs.task(name="plain")(_plain)
    make_job(session, task="gone")
    session.commit()
    for name, says in (("plain", "enqueue_from_page=True"), ("gone", "there is no task 'gone'")):
        assert says in soup(get(f"/enqueue/tasks/{name}").text).main.text
        answer = post(client, f"/tasks/{name}/enqueue", {})
        assert answer.status_code == 422
        assert says in soup(answer.text).main.text
    for name in ("nobody", "x" * 600):
        assert "No such task" in get(f"/enqueue/tasks/{name}", status=404).text


def test_a_task_without_parameters_is_enqueued_too(
    client: FlaskClient, get: Get, opsjobs: OpsJobs
) -> None:
    opsjobs.task(name="plain", enqueue_from_page=True)(_plain)
    assert "It takes no arguments." in get("/enqueue/tasks/plain").text
    answer = post(client, "/tasks/plain/enqueue", {})
    assert answer.status_code == 303


def test_a_default_passes_the_display_policy(get: Get, opsjobs: OpsJobs, host: Host) -> None:
    def call(api_key: str = "sensitive") -> None:
        """Does nothing."""

    class Hides:
        def is_hidden_key(self, key: str) -> bool:
            return key == "api_key"

        def clean_text(self, text: str) -> str:
            return text

    opsjobs.task(enqueue_from_page=True)(call)
    host.display = Hides()
    text = get("/enqueue/tasks/call").text
    assert "sensitive" not in text
    assert "[hidden: key api_key]" in text


def test_a_preview_that_has_drifted_is_made_again_with_the_same_arguments(
    client: FlaskClient, host: Host, session: Session
) -> None:
    where = enqueue(client).headers["Location"]
    form = soup(client.get(where).text).select_one("form[action$='/execute']")
    sent = fields_of(form)
    Operator(host).pause_task("send", **WHY)
    answer = post(
        client, form["action"].removeprefix("/ops/jobs"), sent | {"reason": WHY["reason"]}
    )
    assert answer.status_code == 409
    assert jobs(session) == []
    again = soup(answer.text).select_one("form[action$='/tasks/send/enqueue']")
    fields = fields_of(again)
    answer = post(client, "/tasks/send/enqueue", fields)
    assert "The task send is paused" in client.get(answer.headers["Location"]).text
