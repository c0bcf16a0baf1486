"""What `@opsjobs.cron` takes, what it refuses, and that every fault is told where the code is written."""

from __future__ import annotations

from typing import Any

import pytest

from flask_opsjobs import OpsJobs
from flask_opsjobs.errors import DeclarationError
from flask_opsjobs.jobs.record.task import Task


def test_it_stands_above_a_task_and_may_stand_there_twice(opsjobs: OpsJobs, sync: Task) -> None:
    daily = opsjobs.cron("@daily", zone="Europe/Paris", args={"account": 7})
    assert daily(sync) is sync
    opsjobs.cron("0 * * * *", name="sync_hourly", overlap="queue_one", catch_up=3)(sync)
    first, second = opsjobs.cron_entries.values()
    assert (first.name, first.task, first.schedule.zone) == ("sync", "sync", "Europe/Paris")
    assert (first.overlap, first.catch_up, first.catch_up_limit) == ("skip", "none", None)
    assert (second.name, second.task, second.args) == ("sync_hourly", "sync", {})
    assert (second.overlap, second.catch_up, second.catch_up_limit) == ("queue_one", "all", 3)


def test_a_redacted_value_is_validated_and_never_kept(opsjobs: OpsJobs, sync: Task) -> None:
    opsjobs.cron("@daily", args={"account": 7, "secret": "hidden"})(sync)
    assert opsjobs.cron_entries["sync"].args == {"account": 7}
    assert "hidden" not in repr(opsjobs.cron_entries)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"expression": "0 25 * * *"}, "the field hour is '25', allowed is 0 to 23"),
        ({"zone": "Europe/Pariss"}, "did you mean 'Europe/Paris'"),
        ({"overlap": ["skip"]}, "overlap must be one of"),
        ({"overlap": "drop"}, "overlap must be one of allow, skip, queue_one, cancel_previous"),
        ({"catch_up": "all"}, "catch_up must be 'none', 'latest', or how many"),
        ({"catch_up": 0}, "catch_up must be"),
        ({"catch_up": True}, "catch_up must be"),
        ({"catch_up": 2, "overlap": "cancel_previous"}, "would cancel all but the last at once"),
        ({"args": {"account": "many"}}, "account: "),
        ({"args": {"nobody": 1}}, "nobody: "),
        ({"args": [1]}, "args must be a dict"),
        ({"name": "two words"}, "'two words' is not a name"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    opsjobs: OpsJobs, sync: Task, options: dict[str, Any], said: str
) -> None:
    declare = opsjobs.cron(**{"expression": "@daily", **options})
    with pytest.raises(DeclarationError, match=said) as refused:
        declare(sync)
    assert str(refused.value).startswith("cron entry ")
    assert opsjobs.cron_entries == {}


def test_every_fault_is_told_together(opsjobs: OpsJobs, sync: Task) -> None:
    declare = opsjobs.cron("99 * * * *", zone="Nowhere", overlap="drop", args={"nobody": 1})
    with pytest.raises(DeclarationError) as refused:
        declare(sync)
    for part in ("'99'", "Nowhere", "drop", "nobody"):
        assert part in str(refused.value)


def test_a_name_is_taken_once(opsjobs: OpsJobs, sync: Task) -> None:
    opsjobs.cron("@daily")(sync)
    opsjobs.cron("@daily")(sync)  # the same again: its module was reloaded
    with pytest.raises(DeclarationError, match="declared twice, for sync and for sync"):
        opsjobs.cron("@hourly")(sync)


def test_a_plain_function_is_no_worker(opsjobs: OpsJobs) -> None:
    with pytest.raises(DeclarationError, match=r"write @opsjobs\.cron"):
        opsjobs.cron("@daily")(lambda: None)  # type: ignore[arg-type]
