"""What an operator decides about a failure: each decision in each state, and what it means afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.failures import deploys
from flask_opsjobs.failures.lifecycle import ARROWS, STATES
from flask_opsjobs.host import Host

from .conftest import FailureBench

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


@pytest.fixture
def failed(failing: FailureBench) -> int:
    """The id of a failure."""
    failing.fail()
    failing.count()
    found: int = failing.failure()["id"]
    return found


def deploy(failing: FailureBench, version: str) -> int:
    return deploys.mark(failing.bench.connection, version, failing.now)[0].id


def reach(operator: Operator, failed: int, state: str) -> None:
    if state == "resolved":
        operator.resolve_failure(failed, **WHY)
    elif state == "ignored":
        operator.ignore_failure(failed, rate=5, **WHY)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", ["resolve", "ignore"])
def test_each_decision_in_each_state(
    failing: FailureBench, operator: Operator, failed: int, name: str, state: str
) -> None:
    reach(operator, failed, state)
    assert failing.failure()["state"] == state
    if name == "resolve":
        receipt = operator.resolve_failure(failed, "this", **WHY)
    else:
        receipt = operator.ignore_failure(failed, more=10, **WHY)
    (arrow,) = [arrow for arrow in ARROWS if arrow.name == name]
    row = failing.failure()
    assert receipt.is_done
    assert (row["state"],) == arrow.targets
    assert (row["decided_by"], row["decided_reason"]) == ("anna", "because it is a test")
    assert row["ignored_rate"] is None
    assert row["ignored_until_number"] == (None if name == "resolve" else 11)


def test_it_is_resolved_in_a_deploy(failing: FailureBench, operator: Operator, failed: int) -> None:
    first, newest = deploy(failing, "1"), deploy(failing, "2")
    operator.resolve_failure(failed, "this", **WHY)
    assert (failing.failure()["resolved_in"], failing.failure()["resolved_after"]) == (newest, None)
    receipt = operator.resolve_failure(failed, "1", **WHY)
    assert failing.failure()["resolved_in"] == first
    assert receipt.done[0].changes[0].after == "resolved in deploy 1"
    operator.resolve_failure(failed, **WHY)
    assert (failing.failure()["resolved_in"], failing.failure()["resolved_after"]) == (None, newest)


def test_without_a_deploy_it_is_resolved_from_now_on(
    failing: FailureBench, operator: Operator, failed: int
) -> None:
    operator.resolve_failure(failed, "this", **WHY)
    assert (failing.failure()["resolved_in"], failing.failure()["resolved_after"]) == (None, None)
    operator.resolve_failure(failed, "next", **WHY)
    assert (failing.failure()["resolved_in"], failing.failure()["resolved_after"]) == (None, 0)
    with pytest.raises(ActionRefused, match="no deploy of version 9 is marked"):
        operator.resolve_failure(failed, "9", **WHY)


@pytest.mark.parametrize(
    ("until", "says"),
    [
        ({}, "say one of"),
        ({"more": 1, "rate": 1}, "say one of"),
        ({"more": 0}, "more is a whole number"),
        ({"rate": "many"}, "rate is a whole number"),
        ({"until": "tomorrow"}, "until is a span such as 30m, 2h or 3d, or a time"),
        ({"until": "0h"}, "until is a span"),
        ({"until": "9999-12-31T23:59-14:00"}, "until is a span"),
        ({"until": "2020-01-01T00:00"}, "the time has passed"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    failing: FailureBench, operator: Operator, failed: int, until: dict[str, Any], says: str
) -> None:
    with pytest.raises(ActionRefused, match=says):
        operator.ignore_failure(failed, **until, **WHY)
    assert failing.failure()["state"] == "open"


@pytest.mark.parametrize("version", ["", " ", "a\0", "\udcff", "a\nb", "v" * 201])
def test_what_cannot_be_a_version_is_refused(operator: Operator, failed: int, version: str) -> None:
    with pytest.raises(ActionRefused, match="deploy is this, next or the version of a deploy"):
        operator.resolve_failure(failed, version, **WHY)


def test_it_is_ignored_until_a_time(failing: FailureBench, operator: Operator, failed: int) -> None:
    until = failing.now + timedelta(hours=1)
    operator.ignore_failure(failed, until=until, **WHY)
    assert failing.failure()["ignored_until"] == until


@pytest.mark.usefixtures("hiding")
def test_the_reason_is_kept_as_pages_show_it(
    failing: FailureBench, operator: Operator, failed: int
) -> None:
    operator.ignore_failure(failed, more=5, actor="anna", reason="see https://ada:pw@example.com")
    assert failing.failure()["decided_reason"] == "see https://[hidden]@example.com"


def test_it_is_ignored_for_a_span(failing: FailureBench, operator: Operator, failed: int) -> None:
    receipt = operator.ignore_failure(failed, until="90d", **WHY)
    row = failing.failure()
    assert row["ignored_until"] == row["decided_at"] + timedelta(days=90)
    until = f"{row['ignored_until']:%Y-%m-%d %H:%M:%S} UTC"
    assert receipt.done[0].changes[0].after == f"ignored until {until}"


def test_a_plan_is_drifted_by_another_decision(operator: Operator, failed: int) -> None:
    params = {"deploy": "next"}
    preview = operator.preview(
        "failure.resolve", [f"failure/{failed}"], actor="anna", via="page", params=params
    )
    operator.ignore_failure(failed, rate=5, **WHY)
    assert operator.execute(preview.id, preview.token, **WHY).code == "drifted"


def test_a_failure_that_does_not_exist(operator: Operator) -> None:
    with pytest.raises(ActionRefused, match="there is no failure 7"):
        operator.resolve_failure(7, **WHY)
