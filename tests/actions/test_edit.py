"""Another queue, priority or arguments for a waiting job: in each state, what follows, against claims."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import Limit, OpsJobs, Unique, previous
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.shapes import Receipt
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.jobs.lifecycle import sources_of
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.lifeline import integrity
from tests.actions.conftest import Reach
from tests.actions.test_races import WAITING
from tests.conftest import MakeBench
from tests.support.engine import Bench, race, tasks_of
from tests.support.policies import HidesPasswords
from tests.support.waiting import wait_until

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
TIMES = range(8)
SECRET = "s3cr3t-value"


@pytest.fixture
def charge(opsjobs: OpsJobs, record_job: Any) -> Task:
    """A unique task with a limit and tags, all made of its arguments."""

    @opsjobs.task(
        unique=Unique(by=["account"], until="ended"),
        limit=Limit("api", concurrency=2, partition="account"),
        tags=lambda args: [f"account/{args['account']}"],
        redact={"card"},
    )
    def charge(account: int, note: str = "", card: str | None = None) -> None: ...

    return charge


@pytest.fixture
def enqueue(db: SQLAlchemy) -> Callable[..., int]:
    """Enqueues a call and commits; the job's id."""

    def enqueue(task: Any, *args: Any, **kwargs: Any) -> int:
        enqueued: int = task.enqueue(*args, **kwargs).id
        db.session.commit()
        return enqueued

    return enqueue


def locks(bench: Bench) -> dict[int, bytes]:
    rows = bench.rows("SELECT job_id, key FROM opsjobs.unique_locks")
    return {row["job_id"]: bytes(row["key"]) for row in rows}


def params_of(**edit: Any) -> dict[str, Any]:
    """The parameters of an edit that changes only these."""
    return {"queue": None, "priority": None, "args": None, **edit}


def refusal(operator: Operator, job_id: int, **edit: Any) -> tuple[str, str]:
    """The code of the skip and why."""
    params = params_of(**edit)
    (skip,) = operator.plan("job.edit", [f"job/{job_id}"], actor="anna", params=params).skipped
    return skip.code, skip.says.partition(f"job {job_id}: ")[2] or skip.says


@pytest.mark.parametrize("was", sources_of("edit"))
def test_all_three_change_at_once(bench: Bench, operator: Operator, reach: Reach, was: str) -> None:
    job_id = reach(was)
    before = bench.job(job_id)
    receipt = operator.edit_job(job_id, queue="mail", priority=1, args={"text": "hi"}, **WHY)
    job, state = bench.job(job_id), "available" if was == "queued" else was
    found = (job["state"], job["queue"], job["lane"], job["priority"], job["args"])
    assert found == (state, "mail", "mail", 1, {"text": "hi"})
    kept = ("dispatch_no", "attempt", "max_attempts", "due_at", "deadline_at", "tags", "meta")
    assert [job[column] for column in kept] == [before[column] for column in kept]
    changes = {change.what: (change.before, change.after) for change in receipt.done[0].changes}
    assert changes == {
        "queue": ("default", "mail"),
        "priority": ("5", "1"),
        "args": ('{"text": ""}', '{"text": "hi"}'),
        **({"state": ("queued", "available")} if was == "queued" else {}),
    }
    event = bench.row("SELECT before, after FROM opsjobs.audit_events")
    sides = [event[side][f"job/{job_id}"] for side in ("before", "after")]
    assert [(side["queue"], side["priority"]) for side in sides] == [("default", 5), ("mail", 1)]
    assert [side.get("changed_args") for side in sides] == [None, ["text"]]


def test_what_is_left_out_stays_and_is_not_audited(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    first, second = reach("scheduled", text="one"), reach("available", text="two")
    operator.edit_job([first, second], priority=9, **WHY)
    found = [(job["priority"], job["args"]) for job in map(bench.job, (first, second))]
    assert found == [(9, {"text": "one"}), (9, {"text": "two"})]
    event = bench.row("SELECT before, after FROM opsjobs.audit_events")
    assert "args" not in str(event)


def test_a_queued_job_leaves_redis_and_runs_as_edited(
    bench: Bench, operator: Operator, reach: Reach, redis_client: Any
) -> None:
    job_id = reach("queued")
    operator.edit_job(job_id, queue="mail", args={"text": "new"}, **WHY)
    assert redis_client.keys("*opsjobs-*") == []
    assert "not_queued" in str(bench.claim(job_id, 1))
    assert bench.dispatch("default", prefetch=10) == 0
    assert bench.dispatch("mail", prefetch=10) == 1
    claimed = bench.claim(job_id, 2)
    assert '"new"' in str(claimed)


def test_the_counts_of_both_queues_agree_with_their_rows(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    moved, _kept = reach("available"), reach("available")
    operator.edit_job(moved, queue="mail", **WHY)
    operator.edit_job(moved, priority=2, **WHY)
    now = read_clock(bench.connection)
    assert integrity.count_rows(bench.connection, now)
    rows = bench.rows("SELECT queue, enqueued, deleted, stored FROM opsjobs.integrity_checks")
    found = {row["queue"]: (row["enqueued"] - row["deleted"], row["stored"]) for row in rows}
    assert found == {"default": (1, 1), "mail": (1, 1)}
    assert integrity.list_differences(bench.connection, now, bench.host.settings) == []


def test_lock_lane_and_tags_move_with_the_arguments(
    bench: Bench, operator: Operator, charge: Task, enqueue: Any
) -> None:
    job_id, other = enqueue(charge, 1), enqueue(charge, 3)
    before = locks(bench)
    receipt = operator.edit_job(job_id, queue="mail", args={"account": 2}, **WHY)
    job, after = bench.job(job_id), locks(bench)
    found = (job["lane"], job["limiter"], job["partition"], job["weight"], job["tags"])
    assert found == ("mail|api|2", "api", "2", 1, ["account/2"])
    assert after[other] == before[other]
    assert after[job_id] == bytes(job["unique_key"]) != before[job_id]
    note = receipt.done[0].note or ""
    assert all(word in note for word in ("unique lock", "limiter api", "tags"))
    # The call before may be enqueued again, the call after is guarded.
    assert not charge.enqueue(1).conflict
    again = charge.enqueue(2)
    assert (again.id, again.conflict) == (job_id, True)


def test_arguments_outside_of_the_key_leave_the_lock(
    bench: Bench, operator: Operator, charge: Task, enqueue: Any
) -> None:
    job_id = enqueue(charge, 1)
    before = locks(bench)
    operator.edit_job(job_id, args={"note": "later"}, **WHY)
    assert locks(bench) == before
    assert bench.job(job_id)["args"] == {"account": 1, "note": "later"}


def test_a_queue_without_a_worker_is_named(
    make_bench: MakeBench, operator: Operator, reach: Reach
) -> None:
    """As a note: a worker of it may start later."""
    make_bench("worker")  # which listens to default
    one, two = reach("scheduled"), reach("scheduled")
    note = operator.edit_job(one, queue="slow", **WHY).done[0].note
    assert note == (
        "no live worker listens to queue slow: the job waits until one is started with "
        "`flask opsjobs worker slow`"
    )
    assert operator.edit_job(one, queue="default", **WHY).done[0].note is None
    assert operator.edit_job(two, priority=1, **WHY).done[0].note is None


def test_a_call_that_another_job_guards_is_refused(
    bench: Bench, operator: Operator, charge: Task, enqueue: Any
) -> None:
    job_id, other = enqueue(charge, 1), enqueue(charge, 2)
    before = bench.job(job_id)
    code, why = refusal(operator, job_id, args={"account": 2})
    assert (code, why) == ("duplicate", f"job {other} holds the unique lock of the same call")
    assert bench.job(job_id) == before


def test_a_lock_of_options_of_one_call_cannot_move(
    operator: Operator, charge: Task, enqueue: Any
) -> None:
    job_id = enqueue(charge.options(unique=Unique(by=["note"], until="ended")), 1)
    code, why = refusal(operator, job_id, args={"account": 2})
    assert (code, why.partition(":")[0]) == (
        "invalid_args",
        "its unique lock is not the one that its task declares for this call",
    )
    assert operator.edit_job(job_id, priority=1, **WHY).is_done


def test_tags_of_one_call_stay(
    bench: Bench, operator: Operator, charge: Task, enqueue: Any
) -> None:
    job_id = enqueue(charge.options(tags=["mine"]), 1)
    operator.edit_job(job_id, args={"account": 2}, **WHY)
    assert bench.job(job_id)["tags"] == ["mine"]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"account": "many"}, "its arguments would not fit: task charge: account: "),
        ({"acount": 2}, "its arguments would not fit: task charge: acount: "),
        ({"card": SECRET}, "argument card is redacted: leave it out, and it stays as it is"),
    ],
)
def test_arguments_that_do_not_fit_the_task_are_refused(
    operator: Operator, charge: Task, enqueue: Any, args: Any, why: str
) -> None:
    job_id = enqueue(charge, 1)
    code, found = refusal(operator, job_id, args=args)
    assert (code, found[: len(why)]) == ("invalid_args", why)
    assert SECRET not in found


def test_a_value_from_before_its_parameter_was_redacted_is_kept_and_never_shown(
    bench: Bench, operator: Operator, charge: Task, enqueue: Any
) -> None:
    job_id = enqueue(charge, 1)
    stored = f'{{"account": 1, "card": "{SECRET}"}}'
    bench.rows("UPDATE opsjobs.jobs SET args = %s WHERE id = %s RETURNING 1", stored, job_id)
    receipt = operator.edit_job(job_id, args={"note": "later"}, **WHY)
    assert bench.job(job_id)["args"] == {"account": 1, "note": "later", "card": SECRET}
    assert SECRET not in str(receipt)
    assert SECRET not in str(bench.rows("SELECT before, after FROM opsjobs.audit_events"))


def test_a_plan_hides_what_the_display_policy_hides(
    bench: Bench, opsjobs: OpsJobs, operator: Operator, enqueue: Any
) -> None:
    bench.host.display = HidesPasswords()

    @opsjobs.task
    def sign_in(password: str = "", user: str = "") -> None: ...

    job_id = enqueue(sign_in, password=SECRET)
    params = params_of(args={"password": "other-s3cr3t", "user": "u"})
    (item,) = operator.plan("job.edit", [f"job/{job_id}"], actor="anna", params=params).items
    assert "s3cr3t" not in str(item)
    assert "[hidden: key password]" in str(item)


def test_a_stored_call_that_no_longer_fits_can_be_mended(
    bench: Bench, operator: Operator, enqueue: Any, opsjobs: OpsJobs
) -> None:
    """As after a deploy that changed a type: the job was handed back, and waits."""

    @opsjobs.task
    def sync(account: int) -> None: ...

    job_id = enqueue(sync, 1)
    wrong = '{"account": "one"}'
    bench.rows("UPDATE opsjobs.jobs SET args = %s WHERE id = %s RETURNING 1", wrong, job_id)
    operator.edit_job(job_id, args={"account": 1}, **WHY)
    assert bench.job(job_id)["args"] == {"account": 1}


def test_results_of_other_steps_are_no_arguments_to_edit(
    bench: Bench, operator: Operator, opsjobs: OpsJobs, db: SQLAlchemy
) -> None:
    @opsjobs.task(record_output=True)
    def fetch() -> int:
        return 1

    @opsjobs.task
    def send(number: int, text: str = "") -> None: ...

    opsjobs.chain("orders", fetch.s(), send.s(previous, "a")).start()
    db.session.commit()
    first, second = (row["id"] for row in bench.rows("SELECT id FROM opsjobs.jobs ORDER BY id"))
    code, why = refusal(operator, second, args={"text": "b"})
    assert (code, why) == ("invalid_args", "its arguments are results of other steps")
    assert operator.edit_job([first, second], priority=1, **WHY).is_done


def test_one_edit_of_arguments_is_for_one_job(operator: Operator, reach: Reach) -> None:
    one, two = reach("available"), reach("available")
    with pytest.raises(ActionRefused, match="arguments are edited for one job at a time"):
        operator.edit_job([one, two], args={"text": "same"}, **WHY)


def test_a_task_that_is_not_declared_here_keeps_its_arguments(
    bench: Bench, operator: Operator, charge: Task, enqueue: Any
) -> None:
    job_id = enqueue(charge, 1)
    del tasks_of(bench.host)[charge.name]
    code, why = refusal(operator, job_id, args={"account": 2})
    assert (code, why[:32]) == ("invalid_args", "there is no task charge in this ")
    operator.edit_job(job_id, queue="mail", **WHY)
    assert bench.job(job_id)["lane"] == "mail|api|1"


def test_a_key_function_that_raises_is_named_without_its_message(
    operator: Operator, opsjobs: OpsJobs, enqueue: Any
) -> None:
    def key(args: dict[str, Any]) -> int:
        if args["account"] == 2:
            raise RuntimeError(SECRET)
        return int(args["account"])

    @opsjobs.task(unique=Unique(key=key, until="ended"))
    def sync(account: int) -> None: ...

    job_id = enqueue(sync, 1)
    assert refusal(operator, job_id, args={"account": 2}) == (
        "invalid_args",
        "its unique key raised RuntimeError",
    )


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        ({}, "give a queue, a priority or arguments: nothing would change"),
        ({"args": {}}, "give a queue, a priority or arguments"),
        ({"queue": "my queue"}, "queue 'my queue' is not a name"),
        ({"queue": "opsjobs"}, "queue 'opsjobs' is ours"),
        ({"priority": 10}, "priority must be a whole number from 0"),
        ({"priority": "first"}, "priority must be a whole number from 0"),
        ({"args": "[1]"}, "args is a JSON object"),
        ({"args": "{"}, "args is JSON such as"),
        ({"args": {"text": "a\0b"}}, "args is JSON such as"),
        ({"args": '{"a": 1e999}'}, "args is JSON such as"),
        ({"args": "[" * 100_000}, "args is JSON such as"),
        ({"args": {"text": "x" * 2_000_000}}, "args is 2000011 bytes as JSON, more than"),
    ],
)
def test_an_edit_that_cannot_be_read_is_refused(
    operator: Operator, reach: Reach, edit: Any, why: str
) -> None:
    job_id = reach("available")
    with pytest.raises(ActionRefused) as refused:
        operator.edit_job(job_id, **edit, **WHY)
    assert (refused.value.code, str(refused.value)[: len(why)]) == ("unreadable", why)


def test_the_same_values_change_nothing(operator: Operator, reach: Reach) -> None:
    job_id = reach("scheduled", text="a")
    edit = {"queue": "default", "priority": "5", "args": '{"text": "a"}'}
    code, why = refusal(operator, job_id, **edit)
    assert (code, why) == ("already", f"job {job_id} is already as the edit would make it")


def test_a_preview_is_refused_once_another_edit_was_done(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    job_id = reach("available")
    params = params_of(args={"text": "mine"})
    preview = operator.preview(
        "job.edit", [f"job/{job_id}"], actor="anna", via="page", params=params
    )
    operator.edit_job(job_id, args={"text": "theirs"}, **WHY)
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.code == "drifted"
    drifted = {change.what: (change.before, change.after) for change in receipt.drifted}
    assert drifted == {f"job/{job_id} args": ('{"text": ""}', '{"text": "theirs"}')}
    assert bench.job(job_id)["args"] == {"text": "theirs"}


def test_the_audit_keeps_no_value(bench: Bench, operator: Operator, reach: Reach) -> None:
    """Neither of an edit, nor of one that was refused because another came first."""
    job_id = reach("available", text="first-value")
    params = params_of(args={"text": "second-value"})
    preview = operator.preview(
        "job.edit", [f"job/{job_id}"], actor="anna", via="page", params=params
    )
    operator.edit_job(job_id, args={"text": "third-value"}, **WHY)
    assert operator.execute(preview.id, preview.token, **WHY).code == "drifted"
    events = bench.rows("SELECT * FROM opsjobs.audit_events ORDER BY sequence")
    assert [event["outcome"] for event in events] == ["done", "refused"]
    assert "value" not in str(events)


@pytest.mark.parametrize("args", [{"card": SECRET}, {"account": SECRET}, {"acount": SECRET}])
def test_refused_arguments_are_stored_nowhere(
    bench: Bench, operator: Operator, charge: Task, enqueue: Any, args: dict[str, str]
) -> None:
    target, edit = f"job/{enqueue(charge, 1)}", params_of(args=args)
    with pytest.raises(ActionRefused) as refused:
        operator.preview("job.edit", [target], actor="anna", via="python", params=edit)
    assert refused.value.code == "invalid_args"
    receipt = operator.run("job.edit", [target], params=edit, **WHY)
    assert not receipt.is_done
    assert bench.rows("SELECT 1 FROM opsjobs.previews") == []
    assert SECRET not in str(bench.rows("SELECT * FROM opsjobs.audit_events"))


@pytest.mark.parametrize("time", TIMES)
def test_against_the_claim(
    bench: Bench, make_bench: MakeBench, operator: Operator, reach: Reach, time: int
) -> None:
    """Either the job was edited and this delivery does not run it, or it runs as it was."""
    job_id = reach("queued")
    worker = make_bench()
    params = params_of(queue="mail", args={"text": "new"})
    receipt, claimed = race(
        lambda: operator.run("job.edit", [f"job/{job_id}"], **WHY, params=params),
        lambda: worker.claim(job_id),
    )
    job = bench.job(job_id)
    is_claimed = not hasattr(claimed, "reason")
    assert (job["state"], job["queue"], job["args"], receipt.is_done) == (
        ("started", "default", {"text": ""}, False)
        if is_claimed
        else ("available", "mail", {"text": "new"}, True)
    )
    assert is_claimed == ("text" in str(claimed))
    assert '"new"' not in str(claimed)


@pytest.mark.parametrize("time", TIMES)
def test_against_the_dispatch(
    bench: Bench, make_bench: MakeBench, operator: Operator, reach: Reach, time: int
) -> None:
    """Whoever is first, the job is edited: a delivery that was pushed before runs nothing."""
    job_id = reach("available")
    dispatcher = make_bench()
    race(
        lambda: operator.edit_job(job_id, queue="mail", **WHY),
        lambda: dispatcher.dispatch(prefetch=9),
    )
    job = bench.job(job_id)
    assert (job["state"], job["queue"], job["lane"]) == ("available", "mail", "mail")
    assert "reason" in str(bench.claim(job_id, 1))


def race_previewed_edits(
    operator: Operator, job_id: int, edits: dict[str, dict[str, Any]]
) -> dict[str, Receipt]:
    """Execute an edit of each actor at the same moment, all previewed before; the receipts by actor."""

    def executing(actor: str) -> Callable[[], Receipt]:
        params = params_of(**edits[actor])
        preview = operator.preview(
            "job.edit", [f"job/{job_id}"], actor=actor, via="page", params=params
        )
        why = {"actor": actor, "reason": WHY["reason"]}
        return lambda: operator.execute(preview.id, preview.token, **why)

    return dict(zip(edits, race(*map(executing, edits)), strict=True))


def require_agreement(bench: Bench, charge: Task, job_id: int) -> None:
    """The lane, the tags and the unique lock of the job are those of its queue and arguments, of no other."""
    job = bench.job(job_id)
    account = job["args"]["account"]
    found = (job["lane"], job["partition"], job["tags"])
    assert found == (f"{job['queue']}|api|{account}", str(account), [f"account/{account}"])
    assert locks(bench) == {job_id: bytes(job["unique_key"])}
    again = charge.enqueue(account)
    assert (again.id, again.conflict) == (job_id, True)
    others = {1, 2, 3} - {account}
    assert [charge.enqueue(other).conflict for other in others] == [False, False]


@pytest.mark.parametrize("time", TIMES)
def test_of_two_previewed_edits_of_one_job_one_is_done_and_nothing_of_the_other(
    bench: Bench, operator: Operator, charge: Task, enqueue: Any, time: int
) -> None:
    job_id = enqueue(charge, 1)
    edits: dict[str, dict[str, Any]] = {
        "anna": {"queue": "mail", "priority": 1, "args": {"account": 2, "note": "of anna"}},
        "ben": {"queue": "slow", "priority": 9, "args": {"account": 3, "note": "of ben"}},
    }
    receipts = race_previewed_edits(operator, job_id, edits)
    by_code = {receipt.code: actor for actor, receipt in receipts.items()}
    assert by_code.keys() == {None, "drifted"}
    winner, loser = by_code[None], by_code["drifted"]
    assert receipts[loser].done == ()
    assert {name: bench.job(job_id)[name] for name in edits[winner]} == edits[winner]
    require_agreement(bench, charge, job_id)
    events = bench.rows("SELECT actor, code FROM opsjobs.audit_events ORDER BY sequence")
    assert [(event["actor"], event["code"]) for event in events] == [
        (winner, None),
        (loser, "drifted"),
    ]


@pytest.mark.parametrize("time", TIMES)
def test_a_previewed_move_against_a_previewed_edit_of_arguments(
    bench: Bench, operator: Operator, charge: Task, enqueue: Any, time: int
) -> None:
    """A move looks at no arguments, so it is done in any case; arguments are refused for a moved job."""
    job_id = enqueue(charge, 1)
    edits: dict[str, dict[str, Any]] = {
        "anna": {"queue": "mail", "priority": 1},
        "ben": {"args": {"account": 3}},
    }
    receipts = race_previewed_edits(operator, job_id, edits)
    assert receipts["anna"].is_done
    assert receipts["ben"].code in (None, "drifted")
    account = 3 if receipts["ben"].is_done else 1
    job = bench.job(job_id)
    assert (job["queue"], job["priority"]) == ("mail", 1)
    assert job["args"] == {"account": account}
    require_agreement(bench, charge, job_id)
    events = bench.rows("SELECT actor FROM opsjobs.audit_events ORDER BY sequence")
    first = "ben" if receipts["ben"].is_done else "anna"
    assert [event["actor"] for event in events] == sorted(edits, key=lambda one: one != first)


@pytest.mark.parametrize("time", TIMES)
def test_two_that_take_the_call_of_the_other(
    bench: Bench, operator: Operator, charge: Task, enqueue: Any, time: int
) -> None:
    """Neither deadlocks, and each call has one job."""
    one, two = enqueue(charge, 1), enqueue(charge, 2)

    def edit(job_id: int, account: int) -> Callable[[], Any]:
        params = params_of(args={"account": account})
        return lambda: operator.run("job.edit", [f"job/{job_id}"], **WHY, params=params)

    answers = race(edit(one, 2), edit(two, 1))
    assert [answer.is_done for answer in answers] == [False, False]
    assert {job_id: bench.job(job_id)["args"]["account"] for job_id in (one, two)} == {
        one: 1,
        two: 2,
    }
    assert set(locks(bench)) == {one, two}


@pytest.mark.parametrize("time", TIMES)
def test_against_an_enqueue_of_the_call_that_it_becomes(
    app: Flask, bench: Bench, operator: Operator, charge: Task, enqueue: Any, time: int
) -> None:
    job_id = enqueue(charge, 1)

    def call() -> Any:
        with app.app_context():
            enqueued = charge.enqueue(2)
            app.extensions["sqlalchemy"].session.commit()
            return enqueued

    params = params_of(args={"account": 2})
    receipt, enqueued = race(
        lambda: operator.run("job.edit", [f"job/{job_id}"], **WHY, params=params), call
    )
    assert enqueued.conflict == receipt.is_done
    accounts = [row["args"]["account"] for row in bench.rows("SELECT args FROM opsjobs.jobs")]
    assert sorted(accounts) == ([2] if receipt.is_done else [1, 2])
    assert len(locks(bench)) == len(accounts)


def test_an_enqueue_that_commits_while_the_edit_waits_for_it_wins(
    db: SQLAlchemy, bench: Bench, operator: Operator, charge: Task, enqueue: Any
) -> None:
    job_id, found = enqueue(charge, 1), []
    other = charge.enqueue(2).id
    params = params_of(args={"account": 2})
    edit = lambda: operator.run("job.edit", [f"job/{job_id}"], **WHY, params=params)  # noqa: E731
    thread = Thread(target=lambda: found.append(edit()))
    thread.start()
    wait_until(lambda: bench.row(WAITING)["n"] == 1, what="the operator to wait")
    db.session.commit()
    thread.join(10)
    assert [receipt.code for receipt in found] == ["illegal"]
    assert set(locks(bench)) == {job_id, other}
    assert bench.job(job_id)["args"] == {"account": 1}
