"""What operators decide about workers: drain and forget, in each state, and what a worker then knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import ACTIONS, actions_of
from flask_opsjobs.actions.shapes import Preview
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.explain_with_redis import explain
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.host import Host
from flask_opsjobs.overview.badges import find_badges
from flask_opsjobs.workers import transitions as workers
from flask_opsjobs.workers.lifecycle import ENDED, STATES, sources_of
from flask_opsjobs.workers.queries import list_stopped, list_workers
from tests.support.engine import Bench, race, take

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
RecordJob = Callable[..., int]


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


def row(bench: Bench) -> dict[str, Any]:
    return bench.row("SELECT * FROM opsjobs.workers WHERE id = %s", bench.worker_id)


def be(bench: Bench, state: str) -> None:
    ended_at = read_clock(bench.connection) if state in ENDED else None
    bench.rows(
        "UPDATE opsjobs.workers SET state = %s, ended_at = %s WHERE id = %s RETURNING 1",
        state,
        ended_at,
        bench.worker_id,
    )


def beat(bench: Bench, number: int = 1) -> workers.Requests:
    now = read_clock(bench.connection)
    return workers.record_heartbeat(
        bench.connection, bench.worker_id, workers.HeartbeatReport(number), now
    )


def names(bench: Bench) -> list[str]:
    """The workers that the page shows."""
    now = read_clock(bench.connection)
    with Session(bench.host.engine) as session:
        found = [*list_workers(session, now, 45), *list_stopped(session, now)]
    return [worker.name for worker in found]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", actions_of("worker"), ids=lambda action: action.short_name)
def test_each_action_in_each_state(
    bench: Bench, operator: Operator, action: Any, state: str
) -> None:
    be(bench, state)
    before = row(bench)
    params = dict.fromkeys(action.params)
    receipt = operator.run(action.name, [f"worker/{bench.name}"], **WHY, params=params)
    after = row(bench)
    if state not in sources_of(action.short_name):
        assert (receipt.outcome, receipt.code) == ("refused", "illegal")
        assert receipt.says == f"cannot {action.short_name} worker worker-1: it is {state}"
        assert after == before
    else:
        assert receipt.is_done
        assert after["state"] == state
        column = "forgotten_at" if action.short_name == "forget" else "drain_requested_at"
        assert after[column] is not None
        again = operator.run(action.name, [f"worker/{bench.name}"], **WHY, params=params)
        assert [skip.code for skip in again.skipped] == ["already"]
    assert (action in actions_of("worker", state)) == (state in sources_of(action.short_name))


@pytest.mark.parametrize("action", actions_of("worker"), ids=lambda action: action.short_name)
def test_one_that_nobody_knows(bench: Bench, operator: Operator, action: Any) -> None:
    params = dict.fromkeys(action.params)
    receipt = operator.run(action.name, ["worker/nobody"], **WHY, params=params)
    assert (receipt.code, receipt.says) == (
        "unknown_target",
        "there is no worker nobody: see `flask opsjobs workers`",
    )


# --- drain


def test_a_drained_worker_hears_of_it_in_both_ways(bench: Bench, operator: Operator) -> None:
    assert not beat(bench).is_drained
    operator.drain_worker(bench.name, **WHY)
    assert row(bench)["drain_requested_by"] == "anna"
    assert beat(bench, 2) == workers.Requests(is_drained=True, stops=[])
    assert workers.read_requests(bench.connection, bench.worker_id).is_drained
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert (event["action"], event["subject"]) == ("worker.drain", "worker/worker-1")


def test_both_requests_come_together(
    bench: Bench, operator: Operator, record_job: RecordJob
) -> None:
    job_id = record_job()
    bench.dispatch()
    bench.claim(job_id)
    operator.cancel(job_id, **WHY)
    operator.drain_worker(bench.name, **WHY)
    assert beat(bench) == workers.Requests(is_drained=True, stops=[(job_id, 1)])


def test_a_plain_worker_is_not_ours_to_drain(bench: Bench, operator: Operator) -> None:
    now = read_clock(bench.connection)
    workers.find_or_register_plain(bench.connection, "rq-1", "here", 1, now)
    receipt = operator.run("worker.drain", ["worker/rq-1"], **WHY)
    assert receipt.says.endswith("it is a plain rq worker: stop it")


def test_a_drained_worker_is_alive_and_listens_no_more(
    bench: Bench, host: Host, operator: Operator, record_job: RecordJob
) -> None:
    """So the page does not call it late, its running job has no silent worker, and others know."""
    running, waiting = record_job(), record_job()
    bench.dispatch(prefetch=1)
    bench.claim(running)
    operator.drain_worker(bench.name, **WHY)
    now = read_clock(bench.connection)
    with Session(host.engine) as session:
        (worker,) = list_workers(session, now, 45)
        assert (worker.state, worker.is_alive, worker.is_listening) == ("alive", True, False)
        of_running = explain(host, session, running, now)
        of_waiting = explain(host, session, waiting, now)
        badges = find_badges(session, now, 45)
    assert of_running is not None
    assert of_running.reasons == ()
    assert of_waiting is not None
    assert "no_live_worker" in [reason.code for reason in of_waiting.reasons]
    assert badges["queues"].says == "queue without a worker"


def test_a_restarted_worker_of_the_same_name_is_not_drained(
    bench: Bench, host: Host, operator: Operator
) -> None:
    operator.drain_worker(bench.name, **WHY)
    workers.stop(bench.connection, bench.worker_id, read_clock(bench.connection))
    again = Bench(host, bench.name)
    assert again.worker_id == bench.worker_id
    again.close()
    assert row(bench)["drain_requested_at"] is None
    assert not beat(bench).is_drained


@pytest.fixture
def others(host: Host) -> Iterator[list[Bench]]:
    """Workers beside worker-1, which listens to `default`: of other queues, and on another machine."""
    mail = Bench(host, "mail-1", ("mail",))
    both = Bench(host, "both-1", ("mail", "default"))
    both.rows("UPDATE opsjobs.workers SET host = 'web-2' WHERE name = 'both-1' RETURNING 1")
    workers.find_or_register_plain(both.connection, "rq-1", "here", 1, read_clock(both.connection))
    both.rows("UPDATE opsjobs.workers SET queues = '{mail}' WHERE name = 'rq-1' RETURNING 1")
    yield [mail, both]
    mail.close()
    both.close()


def preview_drain(operator: Operator, **chosen: str) -> Preview:
    """A preview of anna's for all workers of a place, as the page makes it."""
    names = operator.find_workers("worker.drain", **chosen)
    targets = [f"worker/{name}" for name in names]
    return operator.preview("worker.drain", targets, actor="anna", via="page")


def list_drained(bench: Bench) -> list[str]:
    wanted = "SELECT name FROM opsjobs.workers WHERE drain_requested_at IS NOT NULL ORDER BY id"
    return [row["name"] for row in bench.rows(wanted)]


@pytest.mark.parametrize(
    ("chosen", "drained", "stopped"),
    [
        ({"queue": "mail"}, ["mail-1", "both-1"], ["mail-1", "both-1", "rq-1"]),
        ({"host": "here"}, ["worker-1", "mail-1"], ["worker-1", "mail-1", "rq-1"]),
        ({"queue": "mail", "host": "web-2"}, ["both-1"], ["both-1"]),
    ],
)
def test_all_of_a_queue_or_of_a_machine(
    bench: Bench,
    operator: Operator,
    others: list[Bench],
    chosen: dict[str, Any],
    drained: list[str],
    stopped: list[str],
) -> None:
    # A plain rq worker takes no grace, so that none is chosen with one.
    assert operator.find_workers("worker.stop", grace=0, **chosen) == drained
    targets = [item.target for item in operator.stop_worker(**chosen, **WHY).done]
    assert targets == [f"worker/{name}" for name in stopped]
    assert operator.find_workers("worker.drain", **chosen) == drained
    assert list_drained(bench) == drained
    with pytest.raises(ActionRefused, match="anna has already asked worker "):
        operator.drain_worker(**chosen, **WHY)


def test_a_queue_without_workers_is_named(operator: Operator) -> None:
    with pytest.raises(ActionRefused) as refused:
        operator.drain_worker(queue="nobody", host="web-9", **WHY)
    assert str(refused.value) == (
        "no worker that can be drained listens to nobody and runs on web-9: see `flask opsjobs workers`"
    )


@pytest.mark.parametrize("time", range(8))
def test_of_two_drains_at_the_same_moment_one_is_done(
    bench: Bench, operator: Operator, time: int
) -> None:
    target, reason = [f"worker/{bench.name}"], WHY["reason"]
    receipts = race(
        lambda: operator.run("worker.drain", target, actor="anna", reason=reason),
        lambda: operator.run("worker.drain", target, actor="ben", reason=reason),
    )
    by_outcome = dict(zip((one.outcome for one in receipts), ("anna", "ben"), strict=True))
    assert sorted(by_outcome) == ["done", "refused"]
    winner, loser = by_outcome["done"], by_outcome["refused"]
    (refused,) = [receipt for receipt in receipts if not receipt.is_done]
    says = f"{winner} has already asked worker worker-1 to leave"
    assert (refused.code, refused.says) == ("illegal", says)
    assert [skip.code for skip in refused.skipped] == ["already"]
    done, other = bench.rows("SELECT * FROM opsjobs.audit_events ORDER BY sequence")
    assert (done["actor"], done["outcome"], done["code"]) == (winner, "done", None)
    assert (other["actor"], other["outcome"], other["code"]) == (loser, "refused", "illegal")
    assert (other["before"], other["after"]) == (None, None)
    found = row(bench)
    assert (found["drain_requested_by"], found["drain_requested_at"]) == (winner, done["at"])


@pytest.mark.parametrize("time", range(8))
def test_of_two_previewed_drains_at_the_same_moment_the_later_has_drifted(
    bench: Bench, operator: Operator, time: int
) -> None:
    target = [f"worker/{bench.name}"]
    one, two = (
        operator.preview("worker.drain", target, actor=actor, via="page")
        for actor in ("anna", "ben")
    )
    reason = WHY["reason"]
    receipts = race(
        lambda: operator.execute(one.id, one.token, actor="anna", reason=reason),
        lambda: operator.execute(two.id, two.token, actor="ben", reason=reason),
    )
    by_code = dict(zip((one.code for one in receipts), ("anna", "ben"), strict=True))
    assert by_code.keys() == {None, "drifted"}
    events = bench.rows("SELECT * FROM opsjobs.audit_events ORDER BY sequence")
    assert [(event["actor"], event["code"], event["preview_id"]) for event in events] == [
        (by_code[code], code, {"anna": one.id, "ben": two.id}[by_code[code]])
        for code in (None, "drifted")
    ]
    found = row(bench)
    assert found["drain_requested_by"] == by_code[None]
    assert found["drain_requested_at"] == events[0]["at"]


@pytest.mark.parametrize("meanwhile", ["drained", *ENDED])
def test_a_preview_of_a_drain_is_refused_once_the_worker_was_drained_or_has_ended(
    bench: Bench, operator: Operator, meanwhile: str
) -> None:
    target = [f"worker/{bench.name}"]
    preview = operator.preview("worker.drain", target, actor="anna", via="page")
    if meanwhile == "drained":
        operator.drain_worker(bench.name, actor="ben", reason="ben was faster than anna")
    else:
        be(bench, meanwhile)
    before = row(bench)
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert (receipt.outcome, receipt.code) == ("refused", "drifted")
    assert receipt.says.startswith("worker worker-1 changed since the preview: nothing was done")
    what = "drain_requested_at" if meanwhile == "drained" else "state"
    facts = [f"worker/worker-1 {what}", "worker/worker-1"]
    assert [change.what for change in receipt.drifted] == facts
    assert row(bench) == before
    event = bench.row("SELECT * FROM opsjobs.audit_events ORDER BY sequence DESC LIMIT 1")
    assert (event["actor"], event["outcome"], event["code"]) == ("anna", "refused", "drifted")


# Each of them also chooses `mail-1`, and a worker of both queues that starts on this machine.
of_a_place = pytest.mark.parametrize(
    ("chosen", "previewed"),
    [({"queue": "mail"}, ["mail-1", "both-1"]), ({"host": "here"}, ["worker-1", "mail-1"])],
    ids=["queue", "machine"],
)


@of_a_place
def test_one_that_starts_after_the_preview_stays(
    bench: Bench,
    host: Host,
    operator: Operator,
    others: list[Bench],
    chosen: dict[str, Any],
    previewed: list[str],
) -> None:
    preview = preview_drain(operator, **chosen)
    targets = [f"worker/{name}" for name in previewed]
    assert list(preview.targets) == [item.target for item in preview.plan.items] == targets
    late = Bench(host, "late-1", ("default", "mail"))
    assert operator.find_workers("worker.drain", **chosen) == [*previewed, "late-1"]
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.is_done
    assert [item.target for item in receipt.done] == targets
    assert receipt.skipped == ()
    assert list_drained(bench) == previewed
    assert not beat(late).is_drained
    late.close()
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert (event["targets"], list(event["after"])) == (targets, sorted(targets))


@of_a_place
@pytest.mark.parametrize("state", ENDED)
def test_once_one_has_left_after_the_preview_nobody_is_drained(
    bench: Bench,
    operator: Operator,
    others: list[Bench],
    chosen: dict[str, Any],
    previewed: list[str],
    state: str,
) -> None:
    preview = preview_drain(operator, **chosen)
    be(others[0], state)
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert (receipt.code, receipt.done) == ("drifted", ())
    changes = [(one.what, one.before, one.after) for one in receipt.drifted]
    assert changes == [
        ("worker/mail-1 state", "alive", state),
        (
            "worker/mail-1",
            "can be acted on",
            f"cannot drain worker mail-1: it is {state}",
        ),
    ]
    assert list_drained(bench) == []
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert (event["outcome"], event["code"]) == ("refused", "drifted")
    assert event["targets"] == [f"worker/{name}" for name in previewed]
    # The next preview is of those that are left.
    left = [name for name in previewed if name != "mail-1"]
    again = preview_drain(operator, **chosen)
    assert operator.execute(again.id, again.token, **WHY).is_done
    assert list_drained(bench) == left


@of_a_place
def test_without_a_preview_one_that_has_left_is_skipped(
    bench: Bench,
    operator: Operator,
    others: list[Bench],
    chosen: dict[str, Any],
    previewed: list[str],
) -> None:
    """As when it leaves between the two reads of one call."""
    names = operator.find_workers("worker.drain", **chosen)
    be(others[0], "stopped")
    receipt = operator.drain_worker(names, **WHY)
    left = [name for name in previewed if name != "mail-1"]
    assert [item.target for item in receipt.done] == [f"worker/{name}" for name in left]
    assert [(skip.target, skip.code, skip.says) for skip in receipt.skipped] == [
        ("worker/mail-1", "illegal", "cannot drain worker mail-1: it is stopped")
    ]
    assert list_drained(bench) == left
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert event["after"]["worker/mail-1"] == {"skipped": "illegal"}


# --- stop


def test_a_drained_worker_can_be_stopped_at_once(bench: Bench, operator: Operator) -> None:
    operator.drain_worker(bench.name, actor="ben", reason="because it is a test")
    receipt = operator.stop_worker(bench.name, grace=0, **WHY)
    assert [change.after for change in receipt.done[0].changes] == ["stopped, at once"]
    # Who drained it stays: the audit has who stopped it.
    assert row(bench)["drain_requested_by"] == "ben"
    with pytest.raises(ActionRefused, match="ben has already asked worker worker-1 to leave"):
        operator.stop_worker(bench.name, **WHY)


def test_a_plain_worker_takes_no_grace(bench: Bench, operator: Operator) -> None:
    now = read_clock(bench.connection)
    workers.find_or_register_plain(bench.connection, "rq-1", "here", 1, now)
    with pytest.raises(ActionRefused, match="its queues are not known yet, and so its Redis"):
        operator.stop_worker("rq-1", **WHY)
    with pytest.raises(ActionRefused, match="to end its job first: leave the grace out"):
        operator.stop_worker("rq-1", grace=5, **WHY)


@pytest.mark.parametrize("grace", [-1, 86_401, 1.5, True, "soon"])
def test_a_grace_that_cannot_be_read_is_refused(
    bench: Bench, operator: Operator, grace: Any
) -> None:
    with pytest.raises(ActionRefused, match="grace is whole seconds from 0 to 86,400") as refused:
        operator.stop_worker(bench.name, grace=grace, **WHY)
    assert refused.value.code == "unreadable"
    assert row(bench)["drain_requested_at"] is None


@pytest.mark.parametrize("time", range(8))
def test_two_that_stop_it_at_the_same_moment(bench: Bench, operator: Operator, time: int) -> None:
    target = [f"worker/{bench.name}"]
    receipts = race(
        lambda: operator.run("worker.stop", target, **WHY, params={"grace": None}),
        lambda: operator.run("worker.drain", target, actor="ben", reason=WHY["reason"]),
    )
    (refused,) = [receipt for receipt in receipts if not receipt.is_done]
    assert [skip.code for skip in refused.skipped] == ["already"]


def test_a_preview_is_refused_once_the_worker_has_stopped(bench: Bench, operator: Operator) -> None:
    target = [f"worker/{bench.name}"]
    preview = operator.preview(
        "worker.stop", target, actor="anna", via="page", params={"grace": "60"}
    )
    workers.stop(bench.connection, bench.worker_id, read_clock(bench.connection))
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.code == "drifted"
    assert row(bench)["drain_requested_at"] is None


# --- forget


@pytest.mark.parametrize("state", ENDED)
def test_a_forgotten_worker_is_shown_nowhere(
    bench: Bench, host: Host, operator: Operator, state: str
) -> None:
    be(bench, state)
    assert names(bench) == [bench.name]
    operator.forget_worker(bench.name, **WHY)
    assert names(bench) == []
    with Session(host.engine) as session:
        assert "workers" not in find_badges(session, read_clock(bench.connection), 45)


def test_a_heartbeat_shows_it_again(bench: Bench, operator: Operator) -> None:
    be(bench, "missing")
    operator.forget_worker(bench.name, **WHY)
    beat(bench)
    assert (row(bench)["state"], row(bench)["forgotten_at"]) == ("alive", None)
    assert names(bench) == [bench.name]


def test_a_plain_worker_that_comes_back_is_shown_again(bench: Bench, operator: Operator) -> None:
    now = read_clock(bench.connection)
    plain = workers.find_or_register_plain(bench.connection, "rq-1", "here", 1, now)
    bench.rows("UPDATE opsjobs.workers SET state = 'missing', ended_at = now() RETURNING 1")
    operator.forget_worker("rq-1", **WHY)
    assert workers.find_or_register_plain(bench.connection, "rq-1", "here", 1, now) == plain
    assert "rq-1" in names(bench)


def test_one_that_left_jobs_is_not_forgotten(
    bench: Bench, operator: Operator, record_job: RecordJob
) -> None:
    started = record_job()
    bench.dispatch()
    bench.claim(started)
    reserved = record_job()
    take(bench)
    be(bench, "missing")
    receipt = operator.run("worker.forget", [f"worker/{bench.name}"], **WHY)
    assert receipt.says.endswith("it left 2 jobs: rescue them first")
    later = read_clock(bench.connection) + timedelta(minutes=10)
    targets = [f"job/{started}", f"job/{reserved}"]
    assert len(operator.run("job.rescue", targets, **WHY, now=later).done) == 2
    assert operator.forget_worker(bench.name, **WHY).is_done


@pytest.mark.parametrize("time", range(8))
def test_forgotten_against_a_heartbeat(
    bench: Bench, host: Host, operator: Operator, time: int
) -> None:
    be(bench, "missing")
    receipt, _ = race(
        lambda: operator.run("worker.forget", [f"worker/{bench.name}"], **WHY), lambda: beat(bench)
    )
    found = row(bench)
    assert (found["state"], found["forgotten_at"]) == ("alive", None)
    assert receipt.is_done or receipt.says.endswith("it is alive")


def test_the_registry_has_all() -> None:
    assert [name for name in ACTIONS if name.startswith("worker.")] == [
        "worker.drain",
        "worker.stop",
        "worker.forget",
    ]
