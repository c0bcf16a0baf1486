"""An operator enqueues a job of a task: what the plan says, what is refused, and that it happens once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import Limit, OpsJobs, Unique, signals
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.shapes import Plan, Receipt
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.errors import ActionRefused, DeclarationError
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.record.task import Task
from tests.conftest import MakeApp, MakeBench
from tests.support.dying import wait_until_rolled_back
from tests.support.engine import Bench, race
from tests.support.policies import AllowAll
from tests.support.processes import Children

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
Declare = Callable[..., Task]
KILLED = """
import sys
from flask_opsjobs.actions.operator import Operator
from tests.support.dying import die_before
from tests.support.host import create_app, opsjobs

@opsjobs.task(enqueue_from_page=True)
def poked(number: int) -> None: ...

app = create_app()
with app.app_context():
    operator = Operator(app.extensions["opsjobs"])
    die_before(int(sys.argv[1]))
    operator.enqueue_task("poked", {"number": int(sys.argv[1])}, actor="anna", reason="because it is a test")
"""


def send(account_id: int, note: str = "", token: str = "") -> None:
    """Does nothing."""


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


@pytest.fixture
def declare(opsjobs: OpsJobs) -> Declare:
    """Declares `send` with these options, for operators to enqueue."""

    def declare(**options: Any) -> Task:
        opsjobs.tasks.pop("send", None)
        chosen = {"queue": "mail", "redact": {"token"}, "enqueue_from_page": True, **options}
        return opsjobs.task(**chosen)(send)

    return declare


def plan(operator: Operator, args: Any = None, name: str = "send", actor: str = "anna") -> Plan:
    given = {"account_id": 7} if args is None else args
    return operator.plan("task.enqueue", [f"task/{name}"], actor=actor, params={"args": given})


def changes_of(found: Plan | Receipt) -> dict[str, str | None]:
    items = found.items if isinstance(found, Plan) else found.done
    return {change.what: change.after for change in items[0].changes}


def jobs(bench: Bench) -> list[dict[str, Any]]:
    return bench.rows("SELECT * FROM opsjobs.jobs ORDER BY id")


def test_a_job_is_enqueued_and_who_did_it_is_audited_with_the_job(
    bench: Bench, operator: Operator, declare: Declare
) -> None:
    declare(priority=2, tags=lambda args: [f"account/{args['account_id']}"])
    receipt = operator.enqueue_task("send", {"account_id": "7"}, **WHY)
    (job,) = jobs(bench)
    assert changes_of(receipt) == {"new job": f"job/{job['id']}"}
    assert (job["queue"], job["priority"], job["args"]) == ("mail", 2, {"account_id": 7})
    assert (job["state"], job["tags"], job["origin"]) == ("available", ["account/7"], "opsjobs")
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert (event["action"], event["actor"], event["permission"]) == (
        "task.enqueue",
        "anna",
        "task.enqueue",
    )
    assert event["targets"] == ["task/send", f"job/{job['id']}"]
    # The audit is kept for ever: it names the job, and the job has its arguments.
    assert "account" not in str(event["before"]) + str(event["after"])


def test_the_plan_says_queue_limiter_and_lock_and_writes_nothing(
    bench: Bench, host: Host, operator: Operator, declare: Declare
) -> None:
    declare(
        unique=Unique(by=["account_id"], until="ended"),
        limit=Limit("api", concurrency=1, partition="account_id"),
    )
    declare_limiters(host, "test")
    found = changes_of(plan(operator, {"account_id": 7, "note": "a"}))
    assert found["args"] == '{"account_id": 7, "note": "a"}'
    assert (found["queue"], found["priority"], found["limiter"]) == ("mail", "5", "api")
    assert found["unique lock"] == "held by the new job"
    assert jobs(bench) == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, "account_id: is required"),
        ({"account_id": "many"}, "account_id: Input should be a valid integer"),
        ({"account_id": 7, "nope": 1}, "nope: the task takes no such argument"),
        (
            {"account_id": 7, "token": "sensitive"},
            "token: is redacted, so its value is never stored",
        ),
        ({"account_id": 7, "note": "a\0b"}, "note: has a NUL character"),
        ({"account_id": "\0"}, "account_id: has a NUL character, which Postgres cannot store$"),
        ({"account_id": 7, "note": "\ud800"}, "note: has one half of a surrogate pair"),
        ({"account_id": 7, "note": "x" * 1_000_000}, "more than OPSJOBS_MAX_ARGS_BYTES"),
        ("{", "args is not JSON"),
        ("[" * 100_000, "args is nested too deeply"),
        ("[1]", "args must be a JSON object"),
        ([1], "args must be a JSON object"),
        ({1: 2}, "args must be a JSON object"),
        ("null", "args must be a JSON object"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_arguments_that_do_not_fit_are_refused_by_their_names(
    bench: Bench, operator: Operator, declare: Declare, args: Any, says: str
) -> None:
    declare()
    with pytest.raises(ActionRefused, match=says) as raised:
        operator.preview(
            "task.enqueue", ["task/send"], actor="anna", via="page", params={"args": args}
        )
    assert "sensitive" not in str(raised.value)
    assert bench.rows("SELECT 1 FROM opsjobs.previews") == []
    assert jobs(bench) == []


def test_every_fault_is_told_at_once(operator: Operator, declare: Declare) -> None:
    declare()
    with pytest.raises(ActionRefused) as raised:
        plan(operator, {"account_id": "x", "note": 5, "token": "x"})
    assert [name in str(raised.value) for name in ("account_id: ", "note: ", "token: ")] == [
        True
    ] * 3


def test_only_a_declared_task_that_allows_it(operator: Operator, declare: Declare) -> None:
    declare(enqueue_from_page=False)
    with pytest.raises(ActionRefused, match="declare it with enqueue_from_page=True"):
        plan(operator)
    with pytest.raises(ActionRefused, match="there is no task 'nobody' in this application"):
        plan(operator, name="nobody")
    with pytest.raises(ActionRefused, match="one at a time"):
        operator.plan("task.enqueue", ["task/send", "task/note"], actor="anna", params={"args": {}})


@pytest.mark.parametrize("value", ["yes", None, 1])
def test_the_option_is_true_or_false(opsjobs: OpsJobs, value: Any) -> None:
    with pytest.raises(DeclarationError, match="enqueue_from_page must be True or False"):
        opsjobs.task(enqueue_from_page=value)(send)


def test_a_paused_task_and_a_paused_queue_say_that_the_job_waits_and_why(
    bench: Bench, operator: Operator, declare: Declare
) -> None:
    declare()
    assert "No live worker listens to the queue mail" in str(plan(operator).items[0].note)
    operator.pause("mail", actor="ben", reason="the relay is down")
    note = str(plan(operator).items[0].note)
    assert note.startswith("the job will wait. The queue mail is paused")
    assert "ben: “the relay is down”" in note
    operator.resume("mail", **WHY)
    operator.drain("mail", actor="ben", reason="the relay is old")
    assert "The queue mail is draining" in str(plan(operator).items[0].note)
    operator.resume("mail", **WHY)
    operator.pause_task("send", actor="ben", reason="the letters are wrong")
    receipt = operator.enqueue_task("send", {"account_id": 7}, **WHY)
    assert "The task send is paused" in str(receipt.done[0].note)
    assert "ben: “the letters are wrong”" in str(receipt.done[0].note)
    assert [job["state"] for job in jobs(bench)] == ["available"]


def test_with_a_worker_nothing_is_said(
    make_bench: MakeBench, operator: Operator, declare: Declare
) -> None:
    declare(queue="default")
    make_bench("worker")
    assert plan(operator).items[0].note is None


@pytest.mark.parametrize(
    "left",
    ["state = 'stopped', ended_at = now()", "heartbeat_at = now() - interval '1 hour'"],
    ids=["ended", "late"],
)
def test_the_worker_that_listened_last_is_named(
    make_bench: MakeBench, operator: Operator, declare: Declare, left: str
) -> None:
    declare(queue="default")
    worker = make_bench("worker").row(f"UPDATE opsjobs.workers SET {left} RETURNING name")
    assert f"{worker['name']} was the last one." in str(plan(operator).items[0].note)


def test_a_limiter_that_is_full_says_that_the_job_waits_without_its_partition(
    make_bench: MakeBench,
    bench: Bench,
    host: Host,
    operator: Operator,
    declare: Declare,
    db: SQLAlchemy,
) -> None:
    task = declare(
        queue="default", limit=Limit("api", concurrency=1, partition="note", when_full="reject")
    )
    declare_limiters(host, "test")
    first = task.enqueue(account_id=1, note="kept-back")
    db.session.commit()
    bench.dispatch_all()
    bench.claim(first.id)
    note = str(plan(operator, {"account_id": 2, "note": "kept-back"}).items[0].note)
    assert "The limiter api is full: 1 of 1 places are taken" in note
    assert "kept-back" not in note
    assert operator.enqueue_task("send", {"account_id": 2, "note": "kept-back"}, **WHY).is_done


def test_a_call_that_is_enqueued_already_is_skipped_by_its_job(
    bench: Bench, operator: Operator, declare: Declare
) -> None:
    declare(unique=Unique(until="ended"))
    operator.enqueue_task("send", {"account_id": 7}, **WHY)
    (job,) = jobs(bench)
    (skip,) = plan(operator).skipped
    assert skip.code == "already"
    assert f"job {job['id']} holds the unique lock of this call" in skip.says
    assert plan(operator, {"account_id": 8}).items


def _raise(_args: Any) -> Any:
    raise RuntimeError("sensitive")


@pytest.mark.parametrize(
    "options",
    [
        {"tags": _raise},
        {"unique": Unique(key=_raise, until="ended")},
        {"limit": Limit("api", rate=1, per=1, partition=_raise)},
    ],
    ids=["tags", "unique", "limit"],
)
def test_code_of_the_host_that_raises_refuses_it_without_a_value(
    bench: Bench, operator: Operator, declare: Declare, options: dict[str, Any]
) -> None:
    declare(**options)
    (skip,) = plan(operator).skipped
    assert "sensitive" not in skip.says
    assert "cannot enqueue a job of task send: " in skip.says
    receipt = operator.run("task.enqueue", ["task/send"], params={"args": {"account_id": 7}}, **WHY)
    assert (receipt.code, jobs(bench)) == ("illegal", [])


def test_a_task_that_is_no_longer_declared_so_is_drift(
    bench: Bench, operator: Operator, declare: Declare, opsjobs: OpsJobs
) -> None:
    def other() -> None:
        opsjobs.tasks.pop("send")
        opsjobs.task(name="send", queue="mail", enqueue_from_page=True)(_other)

    for change in (
        lambda: declare(enqueue_from_page=False),
        lambda: declare(queue="reports"),
        lambda: opsjobs.tasks.pop("send"),
        other,
    ):
        declare()
        shown = operator.preview(
            "task.enqueue",
            ["task/send"],
            actor="anna",
            via="page",
            params={"args": {"account_id": 7}},
        )
        change()
        receipt = operator.execute(shown.id, shown.token, **WHY)
        assert (receipt.code, receipt.audit_sequence is None) == ("drifted", False), receipt
        opsjobs.tasks.pop("send", None)
    assert jobs(bench) == []


def _other(customer_id: int) -> None:
    """Does nothing."""


def test_a_pause_since_the_preview_is_drift(
    bench: Bench, operator: Operator, declare: Declare
) -> None:
    declare()
    shown = operator.preview(
        "task.enqueue", ["task/send"], actor="anna", via="page", params={"args": {"account_id": 7}}
    )
    operator.pause_task("send", **WHY)
    assert operator.execute(shown.id, shown.token, **WHY).code == "drifted"
    assert jobs(bench) == []


@pytest.mark.parametrize("time", range(5))
def test_one_preview_submitted_twice_at_once_enqueues_once(
    bench: Bench, operator: Operator, declare: Declare, time: int
) -> None:
    declare()
    shown = operator.preview(
        "task.enqueue", ["task/send"], actor="anna", via="page", params={"args": {"account_id": 7}}
    )
    receipts = race(*[lambda: operator.execute(shown.id, shown.token, **WHY)] * 2)
    assert sorted(receipt.code or "done" for receipt in receipts) == ["done", "spent"]
    assert len(jobs(bench)) == 1


@pytest.mark.parametrize("time", range(5))
def test_one_unique_call_by_two_persons_and_the_application_gives_one_job(
    bench: Bench, operator: Operator, declare: Declare, make_app: MakeApp, db: SQLAlchemy, time: int
) -> None:
    task = declare(unique=Unique(within=timedelta(hours=1)))
    app = task.host().app_context

    def by_the_application() -> Any:
        with app():
            made = task.enqueue(account_id=7)
            db.session.commit()
            return made

    def by(actor: str) -> Callable[[], Receipt]:
        params = {"args": {"account_id": 7}}
        return lambda: operator.run(
            "task.enqueue", ["task/send"], params=params, actor=actor, reason=WHY["reason"]
        )

    *receipts, _made = race(by("anna"), by("ben"), by_the_application)
    (job,) = jobs(bench)
    for receipt in receipts:
        assert receipt.is_done or f"job {job['id']} holds the unique lock" in receipt.says
    assert sum(receipt.is_done for receipt in receipts) <= 1


@pytest.mark.processes
@pytest.mark.slow
def test_killed_in_the_middle_it_is_done_wholly_or_not_at_all(
    bench: Bench, children: Children
) -> None:
    exit_code, number = -signal.SIGKILL, 0
    seen = set()
    while exit_code == -signal.SIGKILL:
        number += 1
        exit_code = children.python("-c", KILLED, str(number)).wait(60)
        wait_until_rolled_back(bench.connection)
        found = bench.rows(
            "SELECT id FROM opsjobs.jobs WHERE args = %s::jsonb", f'{{"number": {number}}}'
        )
        audited = [
            bench.rows(
                "SELECT 1 FROM opsjobs.audit_events WHERE targets @> ARRAY[%s]", f"job/{row['id']}"
            )
            for row in found
        ]
        assert len(found) <= 1
        assert [len(rows) for rows in audited] == [1] * len(found)
        seen.add(len(found))
    assert exit_code == 0
    assert (seen, number > 3) == ({0, 1}, True)


class Denies(AllowAll):
    """Lets nobody enqueue."""

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        return permission != "task.enqueue"


def test_without_the_permission_nothing_is_read_or_written(
    bench: Bench, host: Host, operator: Operator, declare: Declare
) -> None:
    declare()
    host.access = Denies()
    (skip,) = plan(operator).skipped
    assert (skip.code, skip.says) == (
        "unauthorized",
        "cannot enqueue a job of task send: it needs task.enqueue",
    )
    with pytest.raises(ActionRefused, match=r"needs task\.enqueue"):
        operator.enqueue_task("send", {"account_id": 7}, **WHY)
    assert jobs(bench) == []


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    """The jobs that receivers of `job_enqueued` were told of."""
    told: list[Any] = []

    def hear(_sender: Any, enqueued: Any = None, **_rest: Any) -> None:
        told.append(enqueued)

    signals.job_enqueued.connect(hear)
    yield told
    signals.job_enqueued.disconnect(hear)


def test_the_application_is_told(
    bench: Bench, operator: Operator, declare: Declare, heard: list[Any]
) -> None:
    declare()
    operator.enqueue_task("send", {"account_id": 7}, **WHY)
    assert [made.id for made in heard] == [job["id"] for job in jobs(bench)]
