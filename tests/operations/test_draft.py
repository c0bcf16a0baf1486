"""A draft freezes what matches, says what would happen, and changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs import ActionRefused, JobFilter
from flask_opsjobs.actions.shapes import Change
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.search.ranges import read_moments
from flask_opsjobs.operations import operator as operators
from flask_opsjobs.operations.operator import BulkOperator
from tests.operations.conftest import FAILED, SAME, WHY, Operations
from tests.support.policies import AllowAll


def test_it_freezes_each_job_with_its_facts(operations: Operations) -> None:
    failed, waiting = operations.fail(3), operations.enqueue(2)
    draft = operations.operator.draft("job.retry", JobFilter(queue="default"), actor="anna")
    rows = operations.receipts()
    assert [row["job_id"] for row in rows] == [*failed, *waiting]
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5]
    facts = [(row["state"], row["dispatch_no"], row["attempt"], row["failure_key"]) for row in rows]
    assert facts == [("failed", 1, 1, SAME)] * 3 + [("available", 0, 0, None)] * 2
    assert {row["result"] for row in rows} == {"pending"}
    assert draft.targets == 5
    assert [(each.state, each.number, each.is_legal) for each in draft.counts] == [
        ("failed", 3, True),
        ("available", 2, False),
    ]
    assert (len(draft.samples.items), len(draft.samples.skipped)) == (3, 2)
    assert draft.samples.skipped[0].says.endswith("it is available")
    operation = operations.operation()
    assert (operation["state"], operation["targets"], operation["query"]) == (
        "draft",
        5,
        {"queue": "default"},
    )
    operations.pass_all()
    assert operations.states(failed) == {"failed"}
    assert operations.audited() == []


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (JobFilter(), 4),
        (JobFilter(task="no such task"), 0),
        (JobFilter(queue="default", state="failed"), 3),
        (JobFilter(state="failed", origin="opsjobs"), 3),
        (JobFilter(origin="rq"), 0),
        (JobFilter(id=2), 1),
        (JobFilter(tag="red"), 1),
        (JobFilter.from_query([("args.text", "1")]), 1),
        (JobFilter(created=read_moments("created", "<1h")), 4),
        (JobFilter(created=read_moments("created", ">1h")), 0),
        (JobFilter(failure=1), 3),
        (JobFilter(failure=1, state="available"), 0),
        (JobFilter(failure=2), 0),
        (JobFilter(workflow="none"), 0),
        (JobFilter(workflow=1, step="none"), 0),
        (JobFilter(batch=7), 0),
        (JobFilter(batch="none"), 0),
        (JobFilter(death="signal"), 0),
        (JobFilter(deploy="1.0"), 0),
        (JobFilter(worker="worker-1"), 0),
        (JobFilter(worker="nobody"), 0),
        (JobFilter(incident=1), 0),
        (JobFilter.from_query([("q", "boom -tag:red")]), 3),
        (JobFilter.from_query([("q", "-boom")]), 1),
        (JobFilter.from_query([("q", "boom OR tag:red attempts:0..1")]), 4),
        (JobFilter.from_query([("q", "failure:1 OR failure:2 task:* -queue:mail")]), 3),
    ],
    ids=lambda value: str(getattr(value, "conditions", value))[:60],
)
def test_each_term_of_a_filter_chooses(
    operations: Operations, wanted: JobFilter, number: int
) -> None:
    operations.fail(3)
    operations.enqueue(1, tags=["red"])
    operations.bench.rows(
        """INSERT INTO opsjobs.failures (key, task, title, sample_job_id, sample_dispatch_no, created_at,
               number, first_at, last_at)
           VALUES (%s, 't', 'Boom', 1, 1, now(), 3, now(), now()) RETURNING id""",
        SAME,
    )
    if not number:
        with pytest.raises(ActionRefused) as refused:
            operations.operator.draft("job.delete", wanted, actor="anna")
        assert refused.value.code == "nothing_matches"
        assert operations.bench.rows("SELECT 1 FROM opsjobs.operations") == []
        return
    assert operations.operator.draft("job.delete", wanted, actor="anna").targets == number


def test_jobs_of_a_worker_and_of_an_incident_are_frozen(operations: Operations) -> None:
    runs, taken, named, _ = operations.enqueue(4)
    operations.bench.dispatch(prefetch=2)
    operations.bench.claim(runs, 1)
    operations.bench.rows(
        "UPDATE opsjobs.jobs SET reserved_by = %s WHERE id = %s RETURNING id",
        operations.bench.worker_id,
        taken,
    )
    operations.bench.rows(
        """INSERT INTO opsjobs.incidents (class, fingerprint, subject, severity, state, first_at, opened_at,
               seen_at, affected, facts)
           VALUES ('poison', 'f', 's', 'warning', 'open', now(), now(), now(), 2, %s::jsonb) RETURNING id""",
        f'{{"jobs": [{named}, {runs}, 99]}}',
    )
    for wanted, jobs in {
        JobFilter(worker="worker-1"): [runs, taken],
        JobFilter(worker="worker-1", state="queued"): [taken],
        JobFilter(incident=1): [runs, named],
        JobFilter(incident=1, worker="worker-1"): [runs],
    }.items():
        operations.operator.draft("job.cancel", wanted, actor="anna")
        assert [row["job_id"] for row in operations.receipts()] == jobs, wanted


@pytest.mark.slow(120)
def test_a_million_are_frozen_and_one_more_is_refused(
    operations: Operations, pytestconfig: pytest.Config
) -> None:
    """With `--operation-jobs 100000`: 1,000,001 light rows, without the bound replaced."""
    if pytestconfig.getoption("operation_jobs") < 100_000:
        pytest.skip("it takes minutes: --operation-jobs 100000")
    operations.bench.connection.execute(
        """INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at)
           SELECT 'light', 'light', 'light', 'scheduled', '{}', 1, now(), now() + interval '1 day'
           FROM generate_series(1, 1000001)"""
    )
    with pytest.raises(ActionRefused, match="more than 1,000,000 jobs match") as refused:
        operations.operator.draft("job.cancel", JobFilter(queue="light"), actor="anna")
    assert refused.value.code == "too_many"
    assert operations.bench.rows("SELECT 1 FROM opsjobs.operation_rows LIMIT 1") == []
    operations.operator.cancel(1, **WHY)
    wanted = JobFilter(queue="light", state="scheduled")
    assert operations.operator.draft("job.cancel", wanted, actor="anna").targets == 1_000_000
    assert operations.operator.draft("job.cancel", wanted, actor="anna").legal == 1_000_000


def test_more_than_it_may_have_are_refused(operations: Operations) -> None:
    operations.operator.most_jobs = 3
    first, *_ = operations.enqueue(4)
    with pytest.raises(ActionRefused, match="more than 3 jobs match") as refused:
        operations.operator.draft("job.cancel", JobFilter(), actor="anna")
    assert refused.value.code == "too_many"
    assert operations.bench.rows("SELECT 1 FROM opsjobs.operation_rows") == []
    operations.operator.cancel(first, **WHY)
    assert (
        operations.operator.draft("job.cancel", JobFilter(state="available"), actor="a").targets
        == 3
    )


@pytest.mark.parametrize(
    ("action", "changes", "says"),
    [
        ("job.paint", {}, "no operation does"),
        ("job.reschedule", {}, "no operation does"),
        ("queue.pause", {}, "no operation does"),
        ("job.retry", {"actor": "  "}, "nobody is signed in"),
        ("job.retry", {"rate": -1}, "rate is a whole number from 1 to 10,000, or 0 for no limit"),
        ("job.retry", {"rate": 1.5}, "rate is a whole number"),
        ("job.retry", {"rate": True}, "rate is a whole number"),
        ("job.retry", {"rate": 10_001}, "rate is a whole number"),
        ("job.retry", {"jobs": "state:failed"}, "jobs is a JobFilter"),
        # Each would be a condition that is not asked, so that more jobs would change.
        ("job.retry", {"jobs": JobFilter(step="pay")}, "step: needs the workflow too"),
        ("job.retry", {"jobs": JobFilter(limit=50)}, "limit: is the size of a page"),
        ("job.retry", {"jobs": JobFilter(queue="")}, "queue: is empty"),
        ("job.retry", {"jobs": JobFilter(queue="a\0b")}, "queue"),
        ("job.retry", {"jobs": JobFilter(state="nope")}, "there is no state"),
        ("job.retry", {"jobs": JobFilter(id=2**70)}, "id"),
        ("job.retry", {"jobs": JobFilter(failure="x")}, "failure"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_read_is_refused(
    operations: Operations, action: str, changes: dict[str, Any], says: str
) -> None:
    operations.fail(1)
    asked = {"jobs": FAILED, "actor": "anna", **changes}
    with pytest.raises(ActionRefused, match=says):
        operations.operator.draft(action, **asked)
    assert operations.bench.rows("SELECT 1 FROM opsjobs.operations") == []


def test_a_rate_of_0_is_no_limit(operations: Operations) -> None:
    """To a draft and to its start; a start that says nothing keeps the rate of the draft."""
    operations.enqueue(1)
    every = JobFilter(queue="default")
    draft = operations.operator.draft("job.cancel", every, rate=0, actor="anna")
    assert draft.rate is None
    operations.operator.start_draft(draft.id or 0, **WHY)
    assert operations.operation()["rate"] is None
    for given, kept in ((0, None), (None, 7), (3, 3)):
        draft = operations.operator.draft("job.cancel", every, rate=7, actor="anna")
        operations.operator.start_draft(draft.id or 0, rate=given, **WHY)
        assert operations.operation()["rate"] == kept
    operations.operator.start("job.cancel", every, rate=0, **WHY)
    assert operations.operation()["rate"] is None


@pytest.mark.parametrize("missing", ["operation.start", "job.retry", "payload.view"])
def test_each_permission_is_needed(operations: Operations, missing: str) -> None:
    class Policy(AllowAll):
        def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
            return permission != missing

    operations.fail(1)
    operations.bench.host.access = Policy()
    wanted = JobFilter.from_query([("args.text", "0")])
    with pytest.raises(ActionRefused, match=f"it needs {missing}"):
        operations.operator.draft("job.retry", wanted, actor="anna")
    assert (
        operations.operator.draft("job.retry", wanted, actor="anna", authorize=False).targets == 1
    )


def test_the_text_of_an_error_chooses_as_the_display_policy_shows_it(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hiding:
        def is_hidden_key(self, _key: str) -> bool:
            return False

        def clean_text(self, text: str) -> str:
            return text.replace("token=abc", "token=…")

    for error in ("Boom: token=abc", "BOOM: no token", "Bang"):
        operations.enqueue(1)
        operations.perform(Outcome(kind="raised", error=error, failure_key=SAME.hex()))
    operations.enqueue(1)
    operations.bench.host.display = Hiding()
    draft = operations.operator.draft("job.retry", JobFilter(error="boom"), actor="anna")
    assert [row["job_id"] for row in operations.receipts(draft.id)] == [1, 2]
    narrow = JobFilter(error="boom", created=read_moments("created", ">1h"))
    for hidden in (JobFilter(error="token=abc"), JobFilter(error="token=a"), narrow):
        with pytest.raises(ActionRefused, match="no job matches"):
            operations.operator.draft("job.retry", hidden, actor="anna")
    # Whether too many are searched does not depend on the text.
    monkeypatch.setattr(operators, "MOST_ERRORS", 2)
    for text in ("boom", "token=abc", "nothing has it"):
        with pytest.raises(
            ActionRefused, match="more than 2 jobs that match have an error"
        ) as many:
            operations.operator.draft("job.retry", JobFilter(error=text), actor="anna")
        assert many.value.code == "too_many"


def test_a_reason_that_is_too_short_freezes_nothing(operations: Operations) -> None:
    operations.fail(1)
    with pytest.raises(ActionRefused, match="in at least 8 characters"):
        operations.operator.start("job.retry", FAILED, actor="anna", reason=" short ")
    assert operations.bench.rows("SELECT 1 FROM opsjobs.operations") == []


def test_one_that_is_not_kept_writes_nothing(operations: Operations) -> None:
    operations.fail(2)
    draft = operations.operator.draft("job.retry", FAILED, actor="anna", is_kept=False)
    assert (draft.id, draft.targets, draft.legal) == (None, 2, 2)
    assert operations.bench.rows("SELECT 1 FROM opsjobs.operations") == []
    assert operators.say_draft(draft)[:2] == [
        "Retry 2 jobs: 2 in a state that allows it",
        "  2 failed",
    ]


class Without(AllowAll):
    """Denies ben one permission."""

    def __init__(self, permission: str) -> None:
        self.permission = permission

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        return (actor, permission) != ("ben", self.permission)


def test_a_colleague_starts_it_under_their_own_name(operations: Operations) -> None:
    operations.fail(1)
    draft = operations.operator.draft("job.retry", FAILED, actor="anna")
    receipt = operations.operator.start_draft(draft.id or 0, actor="ben", reason=WHY["reason"])
    assert Change("actor", "anna", "ben") in receipt.done[0].changes
    assert operations.operation()["actor"] == "ben"
    event = operations.bench.row("SELECT * FROM opsjobs.audit_events")
    before, after = (event[side][f"operation/{draft.id}"] for side in ("before", "after"))
    assert (event["actor"], before["actor"], after["actor"]) == ("ben", "anna", "ben")
    operations.bench.host.access = Without("job.retry")
    operations.pass_all()
    assert operations.operation()["says"] == "ben no longer has job.retry"


@pytest.mark.parametrize("permission", ["operation.start", "job.retry", "payload.view"])
def test_a_colleague_needs_each_permission_of_who_made_it(
    operations: Operations, permission: str
) -> None:
    operations.fail(1)
    searched = JobFilter.from_query([("q", "boom")])
    draft = operations.operator.draft("job.retry", searched, actor="anna")
    operations.bench.host.access = Without(permission)
    with pytest.raises(ActionRefused, match=f"it needs {permission}") as refused:
        operations.operator.start_draft(draft.id or 0, actor="ben", reason=WHY["reason"])
    assert refused.value.code in ("unauthorized", "illegal")
    assert operations.operation()["state"] == "draft"
    assert operations.operator.start_draft(draft.id or 0, **WHY).is_done


def test_it_is_started_once_and_in_time(operations: Operations) -> None:
    operations.fail(1)
    draft = operations.operator.draft("job.retry", FAILED, actor="anna")
    assert draft.id is not None
    assert operations.operator.start_draft(draft.id, **WHY).is_done
    for actor in ("anna", "ben"):
        with pytest.raises(ActionRefused, match="it is running"):
            operations.operator.start_draft(draft.id, actor=actor, reason=WHY["reason"])
    late = operations.operator.draft("job.retry", FAILED, actor="anna")
    receipt = operations.operator.run(
        "operation.start",
        [f"operation/{late.id}"],
        params={"rate": None},
        **WHY,
        now=operations.now + timedelta(minutes=16),
    )
    assert "older than 15 minutes" in receipt.says


def test_a_draft_that_nobody_starts_expires(operations: Operations) -> None:
    operations.fail(1)
    operations.operator.draft("job.retry", FAILED, actor="anna")
    operations.later(timedelta(minutes=14))
    operations.pass_all()
    assert operations.operation()["state"] == "draft"
    operations.later(timedelta(minutes=2))
    operations.pass_all()
    assert operations.operation()["state"] == "expired"
    assert operations.audited() == []


def test_the_extension_has_it(operations: Operations, opsjobs: Any) -> None:
    assert isinstance(opsjobs.operator, BulkOperator)
