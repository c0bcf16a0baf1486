"""What an operator may do with incidents: acknowledge until a time, take that back, resolve."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs import signals
from flask_opsjobs.actions.domain import Action
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import actions_of
from flask_opsjobs.core import db
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline.lifecycle import ARROWS, STATES
from tests.lifeline.test_incidents import Passes, finding
from tests.support.engine import Bench, race

WHY: dict[str, Any] = {"actor": "ada", "reason": "known to all of us"}
ACTIONS = actions_of("incident")


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


@pytest.fixture
def passes(bench: Bench) -> Passes:
    return Passes(bench)


def reach(passes: Passes, operator: Operator, state: str) -> int:
    """An incident in this state that no pass finds any more."""
    (news,) = passes.look(finding(affected=4)).opened
    if state == "acknowledged":
        operator.acknowledge_incident(news.id, "2h", **WHY)
    elif state == "resolved":
        passes.quiet()
    passes.look()
    return news.id


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.short_name)
def test_each_action_on_each_state(
    passes: Passes, operator: Operator, action: Action[Any], state: str
) -> None:
    id_ = reach(passes, operator, state)
    params = dict.fromkeys(action.params, "3h")
    receipt = operator.run(action.name, [f"incident/{id_}"], **WHY, params=params)
    (arrow,) = [arrow for arrow in ARROWS if arrow.name == action.short_name]
    if state in arrow.sources:
        assert receipt.is_done
        assert passes.row["state"] in arrow.targets
        event = passes.bench.row(
            "SELECT * FROM opsjobs.audit_events ORDER BY sequence DESC LIMIT 1"
        )
        assert (event["action"], event["targets"]) == (action.name, [f"incident/{id_}"])
        seen = passes.bench.rows("SELECT * FROM opsjobs.evidence WHERE source = 'operator'")
        assert seen[-1]["facts"]["by"] == "ada"
        assert seen[-1]["audit_sequence"] == event["sequence"] == receipt.audit_sequence
    else:
        assert (receipt.outcome, passes.row["state"]) == ("refused", state)
        assert receipt.code in ("illegal", "already")
    assert (action in actions_of("incident", state)) == (state in arrow.sources)


def test_an_acknowledgement_says_who_until_when_and_how_bad_it_was(
    passes: Passes, operator: Operator
) -> None:
    (news,) = passes.look(finding(affected=4)).opened
    receipt = operator.acknowledge_incident(news.id, "2h", **WHY)
    row = passes.row
    assert (row["acknowledged_by"], row["acknowledged_reason"]) == ("ada", WHY["reason"])
    assert row["acknowledged_until"] == row["acknowledged_at"] + timedelta(hours=2)
    assert (row["acknowledged_severity"], row["acknowledged_affected"]) == ("warning", 4)
    note = receipt.done[0].note
    assert (
        note == "it stays open and calls nobody until then, until it turns critical, "
        "or until it affects 8"
    )
    # Again: it lasts longer.
    operator.acknowledge_incident(news.id, row["acknowledged_at"] + timedelta(hours=5), **WHY)
    assert passes.row["acknowledged_until"] == row["acknowledged_at"] + timedelta(hours=5)


@pytest.mark.parametrize(
    "until",
    [
        *("", "2", "2x", "0h", "-2h", "31d", "99999d", "soon", 7, None, "2026-13-01"),
        *("9999-12-31T23:59-14:00", "0001-01-01T00:00+14:00", "9001-01-01"),
    ],
)
def test_an_acknowledgement_without_a_good_end_is_refused(
    passes: Passes, operator: Operator, until: Any
) -> None:
    (news,) = passes.look(finding()).opened
    with pytest.raises(ActionRefused, match="until is a span such as 30m, 2h or 3d"):
        operator.acknowledge_incident(news.id, until, **WHY)
    assert passes.row["state"] == "open"


@pytest.mark.parametrize("after", [timedelta(hours=-1), timedelta(days=31)])
def test_an_acknowledgement_ends_in_the_future_and_within_thirty_days(
    passes: Passes, operator: Operator, after: timedelta
) -> None:
    (news,) = passes.look(finding()).opened
    with pytest.raises(ActionRefused, match="is not within the next 30 days"):
        operator.acknowledge_incident(news.id, passes.now + after, **WHY)


def test_what_is_still_true_is_not_resolved(passes: Passes, operator: Operator) -> None:
    (news,) = passes.look(finding()).opened
    with pytest.raises(ActionRefused, match="still true") as refused:
        operator.resolve_incident(news.id, **WHY)
    assert refused.value.receipt.code == "still_true"
    # One complete pass without it is enough for a person, but not for the detector.
    passes.look(is_complete=False)
    with pytest.raises(ActionRefused, match="still true"):
        operator.resolve_incident(news.id, **WHY)
    passes.look()
    assert operator.resolve_incident(news.id, **WHY).is_done
    assert (passes.row["state"], passes.row["resolved_by"]) == ("resolved", "operator")


def test_a_resolved_one_is_told_and_reopens_when_it_is_found_again(
    passes: Passes, operator: Operator
) -> None:
    sent: list[Any] = []
    receive = lambda _, **facts: sent.append((facts["incident"], facts["episode"]))  # noqa: E731
    signals.incident_resolved.connect(receive)
    id_ = reach(passes, operator, "acknowledged")
    operator.resolve_incident(id_, **WHY)
    assert sent == [(id_, 1)]
    assert passes.row["acknowledged_by"] is None
    (news,) = passes.look(finding()).reopened
    assert (news.id, news.episode) == (id_, 2)


def test_taking_an_acknowledgement_back_needs_the_same_permission() -> None:
    by_name = {action.short_name: action.permission for action in ACTIONS}
    assert by_name == {
        "acknowledge": "incident.acknowledge",
        "unacknowledge": "incident.acknowledge",
        "resolve": "incident.resolve",
    }


def test_a_preview_drifts_when_the_incident_gets_more_severe(
    passes: Passes, operator: Operator
) -> None:
    (news,) = passes.look(finding()).opened
    preview = operator.preview(
        "incident.acknowledge",
        [f"incident/{news.id}"],
        actor="ada",
        via="page",
        params={"until": "2h"},
    )
    passes.look(finding(severity="critical"))
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert (receipt.outcome, receipt.code) == ("refused", "drifted")
    assert passes.row["state"] == "open"


def test_an_acknowledgement_against_a_clear(
    passes: Passes, operator: Operator, bench: Bench
) -> None:
    """Whoever comes second sees what the first one has done: no row is half acknowledged and half ended."""
    connection = db.connect_apart(bench.host.engine)
    many = [finding(f"loop/{number}") for number in range(10)]
    ids = [news.id for news in passes.look(*many).opened]
    for _ in range(5):
        passes.look()
    later: datetime = passes.now + timedelta(minutes=1)

    def clear() -> Any:
        passes.now = later
        return passes.look_on(connection)

    cleared, acknowledged = race(
        clear,
        lambda: operator.run(
            "incident.acknowledge",
            [f"incident/{each}" for each in ids],
            params={"until": "2h"},
            **WHY,
        ),
    )
    rows = bench.rows("SELECT * FROM opsjobs.incidents")
    assert {row["state"] for row in rows} == {"resolved"}
    assert len(cleared.resolved) == 10
    assert {row["acknowledged_by"] for row in rows} == {None}
    assert acknowledged.outcome in ("done", "refused")
    connection.close()


@pytest.mark.parametrize("is_found", [True, False])
def test_a_resolve_against_a_pass(
    passes: Passes, operator: Operator, bench: Bench, is_found: bool
) -> None:
    """Whoever comes second sees what the first one has done: what is found again is open at the end, in the
    same episode or in the next one, and what is not is resolved once.
    """
    connection = db.connect_apart(bench.host.engine)
    many = [finding(f"loop/{number}") for number in range(10)]
    ids = [news.id for news in passes.look(*many).opened]
    passes.look()
    applied, receipt = race(
        lambda: passes.look_on(connection, *(many if is_found else ())),
        lambda: operator.run("incident.resolve", [f"incident/{each}" for each in ids], **WHY),
    )
    rows = bench.rows("SELECT * FROM opsjobs.incidents")
    if is_found:
        episode = 2 if receipt.is_done else 1
        assert {(row["state"], row["episode"]) for row in rows} == {("open", episode)}
        assert len(applied.reopened) == (10 if receipt.is_done else 0)
        assert receipt.is_done or receipt.code == "still_true"
    else:
        assert receipt.is_done
        assert {(row["state"], row["resolved_by"]) for row in rows} == {("resolved", "operator")}
        assert not applied.resolved
    ends = bench.rows("SELECT sum(count) AS n FROM opsjobs.evidence WHERE kind = 'resolved'")
    assert int(ends[0]["n"] or 0) == (10 if receipt.is_done else 0)
    connection.close()
