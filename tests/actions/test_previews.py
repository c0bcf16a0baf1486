"""A preview: good once and for fifteen minutes, under the name of who opened it,
refused when what it showed has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.planning import find_preview
from flask_opsjobs.actions.shapes import Preview
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.lifeline import retention
from tests.actions.conftest import Reach
from tests.support.engine import Bench
from tests.support.policies import AllowAll

REASON = "because it is a test"
Exhausted = Callable[..., int]


class Denying(AllowAll):
    """Says no to what stands in `denied`, and raises or evades when told to."""

    def __init__(self) -> None:
        self.denied: set[str] = set()
        self.answer: Any = True

    def can(self, actor: str, permission: str, subject: str | None = None) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return subject not in self.denied and self.answer


@pytest.fixture
def policy(host: Host) -> Denying:
    host.access = Denying()
    return host.access


@pytest.fixture
def retry(operator: Operator, exhausted: Exhausted) -> tuple[int, Preview]:
    """A failed job, and a preview of its retry by anna."""
    job_id = exhausted()
    return job_id, operator.preview("job.retry", [f"job/{job_id}"], actor="anna", via="page")


def events(bench: Bench) -> list[tuple[str, str, str | None]]:
    found = bench.rows("SELECT actor, outcome, code FROM opsjobs.audit_events ORDER BY sequence")
    return [(row["actor"], row["outcome"], row["code"]) for row in found]


def spent(bench: Bench, preview: Preview) -> bool:
    (row,) = bench.rows("SELECT spent_at FROM opsjobs.previews WHERE id = %s", preview.id)
    return row["spent_at"] is not None


def test_a_plan_and_a_preview_change_nothing(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    job_id = reach("failed")
    before = bench.job(job_id)
    operator.plan("job.retry", [f"job/{job_id}"], actor="anna")
    assert bench.rows("SELECT 1 FROM opsjobs.previews") == []
    operator.preview("job.retry", [f"job/{job_id}"], actor="anna", via="page")
    assert bench.job(job_id) == before
    assert events(bench) == []


def test_a_preview_is_executed_once(
    bench: Bench, operator: Operator, retry: tuple[int, Preview]
) -> None:
    job_id, preview = retry
    receipt = operator.execute(
        preview.id, preview.token, actor="anna", reason=f"  {REASON} ", request_id="r-1"
    )
    assert (receipt.outcome, bench.job(job_id)["state"]) == ("done", "available")
    (event,) = bench.rows("SELECT * FROM opsjobs.audit_events")
    assert event["sequence"] == receipt.audit_sequence
    assert (event["reason"], event["request_id"], event["via"]) == (REASON, "r-1", "page")
    assert (event["preview_id"], event["previewed_at"]) == (preview.id, preview.created_at)
    assert (event["action"], event["permission"]) == ("job.retry", "job.retry")
    assert (event["subject"], event["targets"]) == (f"job/{job_id}", [f"job/{job_id}"])
    assert event["before"][f"job/{job_id}"]["state"] == "failed"
    assert event["after"][f"job/{job_id}"]["state"] == "available"
    for _ in range(3):  # the first try to use it again is audited, those after it are not
        again = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
        assert again.code == "spent"
    assert events(bench) == [("anna", "done", None), ("anna", "refused", "spent")]


def test_its_page_shows_it_with_a_token_for_each_person(
    host: Host, db: SQLAlchemy, operator: Operator, retry: tuple[int, Preview]
) -> None:
    _, preview = retry
    assert find_preview(db.session(), host.secrets, preview.id, "anna") == preview
    ben = find_preview(db.session(), host.secrets, preview.id, "ben")
    assert ben is not None
    assert ben.token != preview.token
    assert replace(ben, token=preview.token) == preview
    assert find_preview(db.session(), host.secrets, preview.id + 1, "anna") is None
    db.session.rollback()
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
    found = find_preview(db.session(), host.secrets, preview.id, "anna")
    assert found is not None
    assert found.receipt == receipt


def test_the_token_stands_in_no_table(bench: Bench, retry: tuple[int, Preview]) -> None:
    _, preview = retry
    row = bench.row("SELECT previews::text AS all FROM opsjobs.previews")
    assert preview.token not in row["all"]


@pytest.fixture
def as_ben(host: Host, db: SQLAlchemy, retry: tuple[int, Preview]) -> Preview:
    """Anna's preview as ben opens it."""
    found = find_preview(db.session(), host.secrets, retry[1].id, "ben")
    db.session.rollback()
    assert found is not None
    return found


def test_a_colleague_executes_it_once_under_their_own_name(
    bench: Bench, operator: Operator, retry: tuple[int, Preview], as_ben: Preview
) -> None:
    job_id, preview = retry
    receipt = operator.execute(as_ben.id, as_ben.token, actor="ben", reason=REASON)
    assert (receipt.says, bench.job(job_id)["state"]) == (
        f"Retry job {job_id}: done by ben",
        "available",
    )
    (event,) = bench.rows("SELECT * FROM opsjobs.audit_events")
    name = f"preview/{preview.id}"
    assert (event["actor"], event["preview_id"]) == ("ben", preview.id)
    assert (event["before"][name], event["after"][name]) == ({"actor": "anna"}, {"actor": "ben"})
    assert event["targets"] == [f"job/{job_id}"]
    again = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
    assert again.code == "spent"
    seen = f"see audit {receipt.audit_sequence}"
    assert again.says == f"preview {preview.id} was carried out already, {seen}: make a new one"
    assert events(bench) == [("ben", "done", None), ("anna", "refused", "spent")]


def test_what_has_changed_refuses_a_colleague_too(
    bench: Bench, operator: Operator, retry: tuple[int, Preview], as_ben: Preview
) -> None:
    operator.retry(retry[0], actor="cleo", reason=REASON)
    receipt = operator.execute(as_ben.id, as_ben.token, actor="ben", reason=REASON)
    assert receipt.code == "drifted"
    event = bench.rows("SELECT * FROM opsjobs.audit_events ORDER BY sequence")[-1]
    assert (event["actor"], event["code"]) == ("ben", "drifted")
    assert event["before"][f"preview/{as_ben.id}"] == {"actor": "anna"}
    assert event["before"][f"job/{retry[0]}"]["state"] == "failed"


def test_a_colleague_without_the_permission_is_refused_and_does_not_burn_it(
    bench: Bench,
    policy: Denying,
    operator: Operator,
    retry: tuple[int, Preview],
    as_ben: Preview,
) -> None:
    job_id, preview = retry
    policy.denied.add(f"job/{job_id}")
    receipt = operator.execute(as_ben.id, as_ben.token, actor="ben", reason=REASON)
    assert (receipt.code, events(bench)) == ("unauthorized", [])
    policy.denied.clear()
    assert operator.execute(preview.id, preview.token, actor="anna", reason=REASON).is_done


def test_it_expires_for_a_colleague_too(
    bench: Bench, operator: Operator, retry: tuple[int, Preview], as_ben: Preview
) -> None:
    end = retry[1].expires_at
    receipt = operator.execute(as_ben.id, as_ben.token, actor="ben", reason=REASON, now=end)
    assert receipt.code == "expired"
    assert events(bench) == [("ben", "refused", "expired")]


@pytest.mark.parametrize("actor", ["ben", "Anna", "anna ", "ben\n\x1b[2Janna"])
def test_the_token_of_another_person_is_refused_and_the_preview_is_not_burnt(
    bench: Bench,
    operator: Operator,
    retry: tuple[int, Preview],
    actor: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job_id, preview = retry
    receipt = operator.execute(preview.id, preview.token, actor=actor, reason=REASON)
    assert (receipt.code, bench.job(job_id)["state"]) == ("foreign", "failed")
    assert events(bench) == []
    (line,) = caplog.messages
    assert line.isprintable()
    assert line.endswith(
        f"the token of preview {preview.id} is wrong, or is somebody else's: open the preview again"
    )
    assert operator.execute(preview.id, preview.token, actor="anna", reason=REASON).is_done


@pytest.mark.parametrize("token", ["", "x", "ü" * 64, "0" * 64])
def test_a_forged_token_is_refused(
    bench: Bench, operator: Operator, retry: tuple[int, Preview], token: str
) -> None:
    _, preview = retry
    assert operator.execute(preview.id, token, actor="anna", reason=REASON).code == "foreign"
    assert events(bench) == []


def test_the_token_of_another_preview_is_refused(
    operator: Operator, retry: tuple[int, Preview]
) -> None:
    job_id, preview = retry
    other = operator.preview("job.retry", [f"job/{job_id}"], actor="anna", via="page")
    assert operator.execute(preview.id, other.token, actor="anna", reason=REASON).code == "foreign"


def test_a_token_outlives_a_rotation_of_the_secret(
    host: Host, operator: Operator, retry: tuple[int, Preview]
) -> None:
    _, preview = retry
    host.secrets = (b"the new one", *host.secrets)
    assert operator.execute(preview.id, preview.token, actor="anna", reason=REASON).is_done


def test_it_expires(bench: Bench, operator: Operator, retry: tuple[int, Preview]) -> None:
    job_id, preview = retry
    last = preview.created_at + timedelta(minutes=15)
    assert preview.expires_at == last
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON, now=last)
    assert (receipt.code, bench.job(job_id)["state"], spent(bench, preview)) == (
        "expired",
        "failed",
        True,
    )
    assert events(bench) == [("anna", "refused", "expired")]


def test_it_is_good_until_it_expires(operator: Operator, retry: tuple[int, Preview]) -> None:
    _, preview = retry
    now = preview.created_at + timedelta(minutes=14, seconds=59)
    assert operator.execute(preview.id, preview.token, actor="anna", reason=REASON, now=now).is_done


def test_one_that_is_gone_is_refused(bench: Bench, operator: Operator) -> None:
    receipt = operator.execute(7, "x", actor="anna", reason=REASON)
    assert (receipt.code, receipt.audit_sequence, events(bench)) == ("expired", None, [])


# Blanks that Unicode takes for letters or symbols, marks alone, formats, private use, half of a flag of tags.
UNSEEN = (
    "\u115f\u1160\u3164\uffa0\u2800\u0301\u034f\ufe0f"
    "\u200b\u00ad\u202e\u2062\u180e\u17b4\ue000\U000e0041"
)


@pytest.mark.parametrize(
    "reason",
    [
        "",
        " " * 40,
        "\t\n" * 9,
        "1234567",
        "short  \n ",
        "a      b",
        "\u200b" * 20,
        "\0" * 9,
        *(each * 20 for each in UNSEEN),
        *(f"a{each} " * 3 + each for each in UNSEEN),
        UNSEEN * 9,
    ],
    ids=ascii,
)
def test_a_reason_that_says_nothing_costs_nothing(
    bench: Bench, operator: Operator, retry: tuple[int, Preview], reason: str
) -> None:
    job_id, preview = retry
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=reason)
    assert (receipt.code, bench.job(job_id)["state"]) == ("reason_too_short", "failed")
    assert not spent(bench, preview)
    assert events(bench) == []
    assert operator.execute(preview.id, preview.token, actor="anna", reason=REASON).is_done


@pytest.mark.parametrize(
    "reason",
    ["too slow", "再試行してください今", "क्योंकि यह ज़रूरी है", "na\u0308chster Versuch", "👍" * 8],
    ids=ascii,
)
def test_a_reason_in_any_writing_is_enough(
    operator: Operator, retry: tuple[int, Preview], reason: str
) -> None:
    _, preview = retry
    assert operator.execute(preview.id, preview.token, actor="anna", reason=reason).is_done


def test_a_reason_as_long_as_a_book_is_refused_before_anything_is_asked(
    bench: Bench, policy: Denying, operator: Operator, retry: tuple[int, Preview]
) -> None:
    _, preview = retry
    policy.answer = AssertionError("the policy was asked")
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason="x" * 1_000_000)
    assert receipt.code == "reason_too_long"
    assert events(bench) == []


def test_a_reason_with_what_postgres_cannot_keep_is_kept_without_it(
    bench: Bench, operator: Operator, retry: tuple[int, Preview]
) -> None:
    _, preview = retry
    reason = "a NUL \0 and half a \udce4 character"
    assert operator.execute(preview.id, preview.token, actor="anna", reason=reason).is_done
    (event,) = bench.rows("SELECT reason FROM opsjobs.audit_events")
    assert event["reason"] == "a NUL  and half a ? character"


def test_what_changed_since_the_preview_is_said_and_nothing_is_done(
    bench: Bench, operator: Operator, retry: tuple[int, Preview]
) -> None:
    job_id, preview = retry
    operator.retry(job_id, actor="ben", reason=REASON)
    before = bench.job(job_id)
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
    assert (receipt.outcome, receipt.code) == ("refused", "drifted")
    changed = {change.what: (change.before, change.after) for change in receipt.drifted}
    assert changed[f"job/{job_id} state"] == ("failed", "available")
    assert changed[f"job/{job_id} max_attempts"] == ("1", "2")
    assert bench.job(job_id) == before
    assert spent(bench, preview)
    assert events(bench)[1:] == [("anna", "refused", "drifted")]


def test_the_same_state_by_another_attempt_is_a_drift(
    bench: Bench, operator: Operator, retry: tuple[int, Preview]
) -> None:
    job_id, preview = retry
    operator.retry(job_id, actor="ben", reason=REASON)
    bench.dispatch(prefetch=10)
    bench.claim(job_id, 2)
    bench.record(job_id, 2, Outcome(kind="raised", error="Boom"))
    assert bench.job(job_id)["state"] == "failed"
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
    assert receipt.code == "drifted"


def test_a_deadline_that_passes_in_between_is_a_drift(
    operator: Operator, exhausted: Exhausted
) -> None:
    job_id = exhausted(deadline=timedelta(minutes=5))
    preview = operator.preview("job.retry", [f"job/{job_id}"], actor="anna", via="page")
    later = preview.created_at + timedelta(minutes=10)
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON, now=later)
    assert [change.what for change in receipt.drifted] == [f"job/{job_id} deadline_passed"]


def test_a_target_that_was_skipped_and_stays_so_is_no_drift(
    bench: Bench, operator: Operator, reach: Reach, exhausted: Exhausted
) -> None:
    failed, started = exhausted(), reach("started")
    targets = [f"job/{failed}", f"job/{started}", "job/99"]
    preview = operator.preview("job.retry", targets, actor="anna", via="page")
    bench.record(started, 1, Outcome(kind="returned"))
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
    assert [skip.code for skip in receipt.skipped] == ["illegal", "not_found"]
    assert [item.target for item in receipt.done] == [f"job/{failed}"]


def test_a_target_that_was_skipped_and_could_be_done_now_is_a_drift(
    bench: Bench, operator: Operator, reach: Reach, exhausted: Exhausted
) -> None:
    failed, started = exhausted(), reach("started", max_attempts=1)
    targets = [f"job/{failed}", f"job/{started}"]
    preview = operator.preview("job.retry", targets, actor="anna", via="page")
    bench.record(started, 1, Outcome(kind="raised", error="Boom"))
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
    assert receipt.code == "drifted"
    assert (f"job/{started}", "can be acted on") in {(c.what, c.after) for c in receipt.drifted}
    assert bench.job(failed)["state"] == "failed"


def test_a_permission_is_asked_again(
    bench: Bench,
    policy: Denying,
    operator: Operator,
    retry: tuple[int, Preview],
    caplog: pytest.LogCaptureFixture,
) -> None:
    job_id, preview = retry
    policy.denied.add(f"job/{job_id}")
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
    assert (receipt.code, bench.job(job_id)["state"]) == ("unauthorized", "failed")
    assert receipt.says == f"cannot retry job {job_id}: it needs job.retry"
    assert events(bench) == []
    assert caplog.messages == [f"anna was refused job.retry: {receipt.says}"]
    policy.denied.clear()
    assert operator.execute(preview.id, preview.token, actor="anna", reason=REASON).is_done


def test_a_permission_that_is_lost_for_some_targets_is_a_refusal_in_the_audit(
    bench: Bench, policy: Denying, operator: Operator, exhausted: Exhausted
) -> None:
    one, two = exhausted(), exhausted()
    targets = [f"job/{one}", f"job/{two}"]
    preview = operator.preview("job.retry", targets, actor="anna", via="page")
    policy.denied.add(f"job/{one}")
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
    assert (receipt.code, bench.job(two)["state"]) == ("unauthorized", "failed")
    assert spent(bench, preview)
    assert events(bench) == [("anna", "refused", "unauthorized")]


def test_who_may_not_act_is_refused_before_any_target_is_read(
    bench: Bench, policy: Denying, operator: Operator, retry: tuple[int, Preview]
) -> None:
    """A lock of the job would be waited for if the job were looked at."""
    job_id, preview = retry
    policy.answer = False
    with bench.connection.transaction():
        bench.rows("SELECT 1 FROM opsjobs.jobs WHERE id = %s FOR UPDATE", job_id)
        bench.rows("SELECT 1 FROM opsjobs.audit_head FOR UPDATE")
        receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
    assert receipt.code == "unauthorized"


@pytest.mark.parametrize("answer", [False, None, "yes", 1, RuntimeError("the directory is away")])
def test_only_true_is_yes(
    bench: Bench, policy: Denying, operator: Operator, reach: Reach, answer: Any
) -> None:
    job_id = reach("failed")
    policy.answer = answer
    receipt = operator.run("job.retry", [f"job/{job_id}"], actor="anna", reason=REASON)
    assert receipt.code == "unauthorized"
    assert events(bench) == []
    trusted = operator.run(
        "job.retry", [f"job/{job_id}"], actor="anna", reason=REASON, authorize=False
    )
    assert trusted.is_done


def test_what_one_may_not_touch_is_skipped_and_not_even_described(
    policy: Denying, operator: Operator, reach: Reach
) -> None:
    one, two = reach("failed"), reach("failed")
    policy.denied.add(f"job/{one}")
    receipt = operator.run("job.retry", [f"job/{one}", f"job/{two}"], actor="anna", reason=REASON)
    assert [(skip.code, skip.name) for skip in receipt.skipped] == [("unauthorized", None)]
    assert [item.target for item in receipt.done] == [f"job/{two}"]


def test_a_hundred_jobs_pass_in_one_plan_and_one_event(
    bench: Bench, operator: Operator, reach: Reach, exhausted: Exhausted
) -> None:
    failed = [exhausted() for _ in range(40)]
    waiting = [reach("available") for _ in range(57)]
    targets = [f"job/{id}" for id in [*reversed(failed), *waiting, 997, 998, 999]]
    preview = operator.preview("job.retry", [*targets, targets[0]], actor="anna", via="page")
    assert preview.plan.subject == "100 jobs"
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
    assert receipt.says == "Retry: 40 done, 60 skipped"
    assert [item.target for item in receipt.done] == targets[:40]
    assert {skip.code for skip in receipt.skipped} == {"illegal", "not_found"}
    (event,) = bench.rows("SELECT * FROM opsjobs.audit_events")
    assert (event["targets"], set(event["before"])) == (targets, set(targets[:40]))
    skipped = {target: event["after"][target] for target in targets[40:]}
    assert skipped == {skip.target: {"skipped": skip.code} for skip in receipt.skipped}
    counted = bench.row("SELECT count(*) AS n FROM opsjobs.jobs WHERE state = 'available'")
    assert counted["n"] == 97


@pytest.mark.parametrize(
    ("action", "targets", "params"),
    [
        ("job.explode", ["job/1"], None),
        ("job.retry", [], None),
        ("job.retry", [f"job/{n}" for n in range(1, 102)], None),
        ("job.retry", ["queue/mail"], None),
        ("job.retry", ["job/x"], None),
        ("job.retry", ["job/-1"], None),
        ("job.retry", ["job/" + "9" * 30], None),
        ("job.retry", [f"job/{2**63}"], None),
        ("job.retry", ["job/1 "], None),
        ("job.retry", ["job/١"], None),
        ("job.retry", [7], None),
        ("job.retry", ["job/1"], {"prefetch": 3}),
        ("queue.pause", ["queue/"], None),
        ("queue.pause", ["queue/a\0b"], None),
        ("queue.set_prefetch", ["queue/default"], None),
        ("queue.set_prefetch", ["queue/default"], {"prefetch": 0}),
        ("queue.set_prefetch", ["queue/default"], {"prefetch": True}),
        ("queue.set_prefetch", ["queue/default"], {"prefetch": 10**9}),
        ("queue.set_prefetch", ["queue/default"], {"prefetch": "many"}),
    ],
)
def test_nonsense_is_refused_before_anything_is_looked_at(
    bench: Bench, operator: Operator, action: str, targets: Any, params: Any
) -> None:
    for ask in (operator.plan, lambda *a, **k: operator.run(*a, **k, reason=REASON)):
        with pytest.raises(ActionRefused) as refused:
            ask(action, targets, actor="anna", params=params)
        assert (refused.value.code, refused.value.receipt.outcome) == ("unreadable", "refused")
    assert events(bench) == []


def test_the_largest_id_is_looked_for(operator: Operator) -> None:
    plan = operator.plan("job.retry", [f"job/{2**63 - 1}"], actor="anna")
    assert [skip.code for skip in plan.skipped] == ["not_found"]


def test_an_id_has_one_spelling(operator: Operator, reach: Reach) -> None:
    job_id = reach("failed")
    plan = operator.plan("job.retry", [f"job/00{job_id}", f"job/{job_id}"], actor="anna")
    assert plan.targets == (f"job/{job_id}",)


def test_previews_are_kept_for_a_month(
    bench: Bench, operator: Operator, retry: tuple[int, Preview]
) -> None:
    _, preview = retry
    last = preview.created_at + timedelta(days=30)
    settings = replace(bench.host.settings, keep_failed_days=100)
    assert retention.count_retainable(bench.connection, settings, last)["previews"] == 0
    assert retention.retain(bench.connection, settings, last)["previews"] == 0
    after = last + timedelta(microseconds=1)
    assert retention.count_retainable(bench.connection, settings, after)["previews"] == 1
    assert retention.retain(bench.connection, settings, after)["previews"] == 1
    receipt = operator.execute(preview.id, preview.token, actor="anna", reason=REASON)
    assert receipt.code == "expired"


def test_the_same_facts_have_the_same_fingerprint(
    bench: Bench, operator: Operator, retry: tuple[int, Preview]
) -> None:
    job_id, preview = retry
    later = read_clock(bench.connection) + timedelta(minutes=3)
    plans = [
        operator.plan("job.retry", [f"job/{job_id}"], actor=actor, now=now)
        for actor, now in [("anna", None), ("ben", later)]
    ]
    assert {plan.fingerprint for plan in plans} == {preview.plan.fingerprint}
    delete = operator.plan("job.delete", [f"job/{job_id}"], actor="anna")
    assert delete.fingerprint != preview.plan.fingerprint
