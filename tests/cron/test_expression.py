"""An expression is read once; what is wrong is refused with its place and with what is allowed there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs.cron.expression import ALIASES, BadSchedule, read_schedule

MINUTE_FAULT = "the field minute is {!r}, allowed is 0 to 59, with * , - and /"
HOUR_FAULT = "the field hour is {!r}, allowed is 0 to 23, with * , - and /"
DAY_FAULT = (
    "the field day of the month is {!r}, allowed is 1 to 31, L for the last, LW for the last weekday, "
    "with * , - and /"
)
MONTH_FAULT = "the field month is {!r}, allowed is 1 to 12 or JAN to DEC, with * , - and /"
WEEKDAY_FAULT = (
    "the field day of the week is {!r}, allowed is 0 to 7 or SUN to SAT, 5L for the last Friday, "
    "1#2 for the second Monday, with * , - and /"
)
FAULTS = (MINUTE_FAULT, HOUR_FAULT, DAY_FAULT, MONTH_FAULT, WEEKDAY_FAULT)
NOW = datetime(2026, 3, 2, 12, 0, 30, tzinfo=UTC)


def _fault(expression: Any, zone: Any = "UTC") -> str:
    with pytest.raises(BadSchedule) as caught:
        read_schedule(expression, zone)
    return str(caught.value)


@pytest.mark.parametrize("at", range(5), ids=["minute", "hour", "day", "month", "weekday"])
@pytest.mark.parametrize(
    "nonsense",
    [
        *("x", "60", "-1", "1.5", "*/0", "*/", "*/x", "/5", "5-1", "1-", "1-2-3", "*/2/2"),
        *("1,", ",1", "1,,2", "?", "**", "15W", "L-2", "1#6", "1#0", "L1", "٣", "²"),
        *("SUNDAY", "JANUARY", "1#2/2", "H"),
    ],
)
def test_nonsense_is_named_with_its_field_and_what_is_allowed(at: int, nonsense: str) -> None:
    fields = ["*"] * 5
    fields[at] = nonsense
    said = " ".join(fields)
    assert _fault(said) == f"cron expression {said!r}: {FAULTS[at].format(nonsense)}"


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("* 24 * * *", HOUR_FAULT.format("24")),
        ("* * 0 * *", DAY_FAULT.format("0")),
        ("* * 32 * *", DAY_FAULT.format("32")),
        ("* * MON * *", DAY_FAULT.format("MON")),
        ("* * * 0 *", MONTH_FAULT.format("0")),
        ("* * * 13 *", MONTH_FAULT.format("13")),
        ("* * * MON *", MONTH_FAULT.format("MON")),
        ("* * * * 8", WEEKDAY_FAULT.format("8")),
        ("* * * * L", WEEKDAY_FAULT.format("L")),
        ("* * * * JAN", WEEKDAY_FAULT.format("JAN")),
        ("* * * * MON-SUN", WEEKDAY_FAULT.format("MON-SUN")),
    ],
)
def test_what_another_field_allows_is_not_allowed(expression: str, fault: str) -> None:
    assert _fault(expression) == f"cron expression {expression!r}: {fault}"


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        (
            "0 * * * * *",
            "cron expression '0 * * * * *' has 6 fields: seconds are not supported, a slot is a minute",
        ),
        (
            "* * * *",
            "cron expression '* * * *' has 4 fields, it needs 5: "
            "minute, hour, day of the month, month, day of the week",
        ),
        (
            "5",
            "cron expression '5' has 1 fields, it needs 5: "
            "minute, hour, day of the month, month, day of the week",
        ),
        (
            "* * * * * * 2026",
            "cron expression '* * * * * * 2026' has 7 fields, it needs 5: "
            "minute, hour, day of the month, month, day of the week",
        ),
        (
            "@ReBoot",
            "cron expression '@reboot' has no slots: the run history cannot know of a boot",
        ),
        ("@often", f"cron expression '@often' is unknown; known are {', '.join(ALIASES)}"),
        ("@daily *", f"cron expression '@daily *' is unknown; known are {', '.join(ALIASES)}"),
        ("", "a cron expression is a text such as '30 3 * * *', got ''"),
        (" \n", "a cron expression is a text such as '30 3 * * *', got ' \\n'"),
        (None, "a cron expression is a text such as '30 3 * * *', got None"),
        (30, "a cron expression is a text such as '30 3 * * *', got 30"),
        (b"* * * * *", "a cron expression is a text such as '30 3 * * *', got b'* * * * *'"),
        ("0," * 100 + "0 * * * *", "a cron expression has at most 200 characters, got 209"),
        ("0 0 31 2 *", "cron expression '0 0 31 2 *': the month '2' never has the day '31'"),
        (
            "0 0 31 feb,4 *",
            "cron expression '0 0 31 feb,4 *': the month 'feb,4' never has the day '31'",
        ),
        (
            "0,5-5/2 * * * MON-1/2",
            "cron expression '0,5-5/2 * * * MON-1/2': the field minute is '0,5-5/2', a range of one value "
            "has no steps: write 5, or 5/… to go on from it; the field day of the week is 'MON-1/2', a range "
            "of one value has no steps: write MON, or MON/… to go on from it",
        ),
        (
            "*/90 */24 L/2 1/12 *",
            "cron expression '*/90 */24 L/2 1/12 *': "
            "the field minute is '*/90', a step too wide for it, which leaves 0 alone: write 0, or a smaller "
            "step; the field hour is '*/24', a step too wide for it, which leaves 0 alone: write 0, or a "
            "smaller step; the field day of the month is 'L/2', a step too wide for it, which leaves L "
            "alone: write L, or a smaller step; the field month is '1/12', a step too wide for it, which "
            "leaves 1 alone: write 1, or a smaller step",
        ),
        # A fifth Monday is never the first of a month, and a star says that both must fit.
        ("0 0 */30 2 1#5", "cron expression '0 0 */30 2 1#5' never has a slot"),
    ],
)
def test_what_is_no_expression_says_why(expression: Any, fault: str) -> None:
    assert _fault(expression) == fault


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Pariss", ": did you mean 'Europe/Paris'?"),
        ("europe/paris", ": did you mean 'Europe/Paris'?"),
        ("New York", ": did you mean 'America/New_York'?"),
        ("right/Europe/Paris", ": did you mean 'Europe/Paris'?"),
        ("+02:00", ", such as 'Europe/Paris' or 'UTC'"),
        ("../../etc/passwd", ", such as 'Europe/Paris' or 'UTC'"),
        ("/etc/localtime", ", such as 'Europe/Paris' or 'UTC'"),
        ("localtime", ", such as 'Europe/Paris' or 'UTC'"),
        ("tzdata.zi", ", such as 'Europe/Paris' or 'UTC'"),
        ("a\0b", ", such as 'Europe/Paris' or 'UTC'"),
        ("", ", such as 'Europe/Paris' or 'UTC'"),
        (None, ", such as 'Europe/Paris' or 'UTC'"),
        (2, ", such as 'Europe/Paris' or 'UTC'"),
    ],
)
def test_an_unknown_zone_is_told_with_one_that_is_known(zone: Any, hint: str) -> None:
    assert _fault("* * * * *", zone) == f"zone {zone!r} is not the name of a time zone{hint}"


def test_a_folder_of_zones_is_no_zone() -> None:
    assert _fault("* * * * *", "Europe").startswith("zone 'Europe' is not the name of a time zone")


def test_several_faults_are_told_at_once() -> None:
    assert _fault("99 * * 13 x", "Mars/Olympus") == (
        "zone 'Mars/Olympus' is not the name of a time zone, such as 'Europe/Paris' or 'UTC'; "
        f"cron expression '99 * * 13 x': {MINUTE_FAULT.format('99')}; {MONTH_FAULT.format('13')}; "
        f"{WEEKDAY_FAULT.format('x')}"
    )


def test_whitespace_is_folded() -> None:
    read = read_schedule("  0\t3  * *\n* ", "Europe/Paris")
    assert (read.expression, read.zone) == ("0 3 * * *", "Europe/Paris")


@pytest.mark.parametrize(("alias", "fields"), ALIASES.items())
@pytest.mark.parametrize("spelled", [str.lower, str.upper, str.title])
def test_an_alias_has_the_slots_of_what_it_stands_for(
    alias: str, fields: str, spelled: Any
) -> None:
    read = read_schedule(spelled(alias), "Europe/Paris")
    assert read.expression == spelled(alias)
    same = read_schedule(fields, "Europe/Paris")
    assert read.next(NOW, 5) == same.next(NOW, 5)
    assert read.words == same.words


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("30 3 * * *", "At 03:30 every day"),
        ("*/5 * * * *", "Every fifth minute of every hour"),
        ("0 9 * * MON-FRI", "At 09:00 on Monday through Friday"),
        ("0 0 L * *", "At 00:00 on the last day of every month"),
        ("@hourly", "At the start of every hour"),
    ],
)
def test_an_expression_is_told_in_words(expression: str, words: str) -> None:
    assert read_schedule(expression).words == words


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 0 L * *", ["2026-03-31", "2026-04-30", "2026-05-31"]),
        ("0 0 LW * *", ["2026-03-31", "2026-04-30", "2026-05-29"]),
        ("0 0 * * 5L", ["2026-03-27", "2026-04-24", "2026-05-29"]),
        ("0 0 * * 1#2", ["2026-03-09", "2026-04-13", "2026-05-11"]),
        ("0 0 * * mon#2", ["2026-03-09", "2026-04-13", "2026-05-11"]),
        ("0 0 * * 7", ["2026-03-08", "2026-03-15", "2026-03-22"]),
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        # Neither begins with a star: one of the two is enough. One does: both.
        ("0 0 13 * FRI", ["2026-03-06", "2026-03-13", "2026-03-20"]),
        ("0 0 */13 * FRI", ["2026-03-27", "2026-05-01", "2026-08-14"]),
    ],
)
def test_days_that_only_a_calendar_knows(expression: str, days: list[str]) -> None:
    slots = read_schedule(expression).next(NOW, 3)
    assert [f"{slot:%Y-%m-%d}" for slot in slots] == days


def test_next_is_after_the_moment_and_in_utc() -> None:
    noon = read_schedule("0 12 * * *", "Europe/Paris")
    first, second = noon.next(NOW.replace(hour=11, second=0), 2)
    assert (first, second) == (NOW.replace(day=3, hour=11, second=0), first + timedelta(days=1))
    assert first.tzinfo is UTC
    assert noon.next(NOW, 0) == []


def test_a_moment_may_be_told_in_any_zone() -> None:
    noon = read_schedule("0 12 * * *", "Europe/Paris")
    for zone in ("Asia/Kolkata", "America/New_York"):
        zone_info = read_schedule("* * * * *", zone).zone_info
        assert noon.next(NOW.astimezone(zone_info), 3) == noon.next(NOW, 3)


def test_slots_between_have_a_begin_an_end_and_a_bound() -> None:
    each = read_schedule("* * * * *")
    begin = NOW.replace(second=0)
    minutes = [begin + timedelta(minutes=number) for number in range(1, 11)]
    assert each.slots_between(begin, minutes[-1], 99) == minutes
    assert each.slots_between(begin, minutes[-1] - timedelta(seconds=1), 99) == minutes[:-1]
    assert each.slots_between(begin, minutes[-1], 4) == minutes[:4]
    assert each.slots_between(begin, begin, 99) == []
    assert each.slots_between(minutes[-1], begin, 99) == []


@pytest.mark.parametrize(
    ("expression", "slots"),
    [
        # Clocks jump from 02:00 to 03:00 on 29 March 2026, which is 01:00 UTC.
        ("30 2 * * *", ["28 01:30", "29 01:00", "30 00:30"]),
        ("0,20,40 2 29 3 *", ["29 01:00"]),
        ("30 2,3 29 3 *", ["29 01:00", "29 01:30"]),
        ("*/30 1-3 29 3 *", ["29 00:00", "29 00:30", "29 01:00", "29 01:30"]),
        ("0 */2 29 3 *", ["28 23:00", "29 02:00", "29 04:00"]),
    ],
)
def test_over_a_gap(expression: str, slots: list[str]) -> None:
    read = read_schedule(expression, "Europe/Paris")
    found = read.slots_between(
        datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 30, 4, tzinfo=UTC), 99
    )
    assert [f"{slot:%d %H:%M}" for slot in found][: len(slots)] == slots


@pytest.mark.parametrize(
    ("expression", "slots"),
    [
        # Clocks show 02:00 to 03:00 twice on 25 October 2026, from 00:00 UTC on.
        ("30 2 * * *", ["24 00:30", "25 00:30", "26 01:30"]),
        ("30 1-3 25 10 *", ["24 23:30", "25 00:30", "25 02:30"]),
        ("*/30 2 25 10 *", ["25 00:00", "25 00:30", "25 01:00", "25 01:30"]),
        ("30 * 25 10 *", ["24 22:30", "24 23:30", "25 00:30", "25 01:30", "25 02:30"]),
    ],
)
def test_over_a_fold(expression: str, slots: list[str]) -> None:
    read = read_schedule(expression, "Europe/Paris")
    found = read.slots_between(
        datetime(2026, 10, 24, tzinfo=UTC), datetime(2026, 10, 26, 4, tzinfo=UTC), 99
    )
    assert [f"{slot:%d %H:%M}" for slot in found][: len(slots)] == slots


def test_a_day_that_a_zone_leaves_out() -> None:
    """Samoa had no 30 December 2011: what was due then came right after it."""
    daily = read_schedule("0 3 * * *", "Pacific/Apia")
    found = daily.next(datetime(2011, 12, 29, tzinfo=UTC), 4)
    assert [f"{slot.astimezone(daily.zone_info):%d %H:%M}" for slot in found] == [
        "29 03:00",
        "31 00:00",
        "31 03:00",
        "01 03:00",
    ]
