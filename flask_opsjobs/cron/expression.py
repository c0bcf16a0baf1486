"""Parses a cron expression in a time zone, names the place of an error, and computes the slots. Pure.

Daylight saving time is handled as by Debian's cron. If minute and hour are fixed, a slot in the skipped hour
runs right after it, and a slot in the repeated hour runs once. If the minute or the hour begins with a star,
the slots follow real time. cronsim computes local times without daylight saving time, and this module applies
the zone: cronsim's own steps lose slots when a gap or a fold lasts half an hour or is at midnight.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache, cached_property
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, L for the last, LW for the last weekday"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of the week", "0 to 7 or SUN to SAT, 5L for the last Friday, 1#2 for the second Monday"),
)
# The attributes of `CronSim` that hold the values of each field.
_SETS = ("minutes", "hours", "days", "months", "weekdays")
_LONGEST = 200
# No time zone has ever changed its clocks by more at once.
_LARGEST_STEP = timedelta(hours=25)
_NEAR = (-_LARGEST_STEP, timedelta(0), _LARGEST_STEP)
_MINUTE = timedelta(minutes=1)


class BadSchedule(ValueError):
    """An invalid schedule. `faults` are pairs: `expression` or `zone`, and a sentence about it."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        self.faults = faults
        super().__init__("; ".join(sentence for _, sentence in faults))


@dataclass(frozen=True)
class Schedule:
    """A valid expression with at least one slot, in an existing zone. Make it with `read_schedule`."""

    expression: str
    zone: str

    @cached_property
    def zone_info(self) -> ZoneInfo:
        """The time zone as Python knows it."""
        return ZoneInfo(self.zone)

    @property
    def words(self) -> str:
        """The expression in words: `At 03:30 every day`."""
        sentence: str = CronSim(self._five, datetime(2000, 1, 1, tzinfo=UTC)).explain()
        return sentence

    def slots_after(self, moment: datetime) -> Iterator[datetime]:
        """Every slot after `moment`, in UTC and in order, each once. Ends when no later year has a slot."""
        last = moment
        shown = CronSim(self._five, self._begin(moment))
        for found in self._as_fixed(shown) if self._is_fixed else self._as_time_goes_on(shown):
            # Two slots in the same skipped hour run at the same moment, and count as one.
            if found > last:
                last = found
                yield found

    def next(self, moment: datetime, number: int) -> list[datetime]:
        """The next slots after `moment`, at most `number`."""
        return list(islice(self.slots_after(moment), number))

    def slots_between(self, after: datetime, until: datetime, most: int) -> list[datetime]:
        """The first `most` slots after `after` and up to `until`, inclusive."""
        coming = takewhile(lambda slot: slot <= until, self.slots_after(after))
        return list(islice(coming, most))

    def _begin(self, moment: datetime) -> datetime:
        """The local time from which to search: what the clock shows at `moment`.

        Near a clock change, the earlier of the times that it would show before and after the change, since
        the local times between them may repeat.
        """
        near = (moment + step for step in _NEAR)
        earliest = min(at.astimezone(self.zone_info).utcoffset() or timedelta(0) for at in near)
        return moment.astimezone(UTC).replace(tzinfo=None) + earliest

    def _as_fixed(self, shown: Iterator[datetime]) -> Iterator[datetime]:
        """The moments when a clock in the zone first shows these local times, or has just skipped them."""
        for clock in shown:
            while (times := self._times(clock))[1] < times[0]:
                clock += _MINUTE
            yield times[0]

    def _as_time_goes_on(self, shown: Iterator[datetime]) -> Iterator[datetime]:
        """Every moment when a clock in the zone shows these local times: never, once or twice each."""
        again: deque[datetime] = deque()
        for clock in shown:
            first, second = self._times(clock)
            while again and again[0] < first:
                yield again.popleft()
            if second >= first:
                yield first
            if second > first:
                again.append(second)
        yield from again

    def _times(self, clock: datetime) -> tuple[datetime, datetime]:
        """The first and second moment of a local time.

        The second is before the first when it is skipped (PEP 495).
        """
        there = clock.replace(tzinfo=self.zone_info)
        return there.astimezone(UTC), there.replace(fold=1).astimezone(UTC)

    @property
    def _is_fixed(self) -> bool:
        return not any(field.startswith("*") for field in self._five.split()[:2])

    @property
    def _five(self) -> str:
        return ALIASES.get(self.expression.lower(), self.expression)


def read_schedule(expression: object, zone: object = "UTC") -> Schedule:
    """Parse the schedule. Raises `BadSchedule` with every fault, its place, and what is allowed there."""
    found_faults = {"zone": _fault_of_zone(zone), "expression": _fault_of(expression)}
    if faults := [(about, sentence) for about, sentence in found_faults.items() if sentence]:
        raise BadSchedule(faults)
    found = Schedule(" ".join(str(expression).split()), str(zone))
    if not found.next(datetime(2024, 1, 1, tzinfo=UTC), 1):
        raise BadSchedule(
            [("expression", f"cron expression {found.expression!r} never has a slot")]
        )
    return found


def _fault_of_zone(zone: object) -> str | None:
    known = _zones()
    if isinstance(zone, str) and zone in known:
        return None
    close = get_close_matches(str(zone), known, n=1, cutoff=0.5)
    hint = f": did you mean {close[0]!r}?" if close else ", such as 'Europe/Paris' or 'UTC'"
    return f"zone {zone!r} is not the name of a time zone{hint}"


@cache
def _zones() -> frozenset[str]:
    """The names of all time zones, except names that mean different zones on different machines.

    Slow to read.
    """
    return frozenset(available_timezones() - {"localtime", "Factory"})


def _fault_of(expression: object) -> str | None:
    if not isinstance(expression, str) or not expression.strip():
        return f"a cron expression is a text such as '30 3 * * *', got {expression!r}"
    text = " ".join(expression.split())
    if len(text) > _LONGEST:
        return f"a cron expression has at most {_LONGEST} characters, got {len(text)}"
    if text.startswith("@"):
        return None if text.lower() in ALIASES else _fault_of_alias(text)
    fields = text.split()
    if len(fields) == 6:
        return (
            f"cron expression {text!r} has 6 fields: seconds are not supported, a slot is a minute"
        )
    if len(fields) != len(_FIELDS):
        return (
            f"cron expression {text!r} has {len(fields)} fields, it needs 5: "
            "minute, hour, day of the month, month, day of the week"
        )
    faults = [
        f"the field {name} is {field!r}, {fault}"
        for at, (field, (name, allowed)) in enumerate(zip(fields, _FIELDS, strict=True))
        if (fault := _fault_of_field(at, field, allowed))
    ]
    if not faults and not _is_readable(fields):
        faults = [f"the month {fields[3]!r} never has the day {fields[2]!r}"]
    return f"cron expression {text!r}: {'; '.join(faults)}" if faults else None


def _fault_of_alias(text: str) -> str:
    if text.lower() == "@reboot":
        return "cron expression '@reboot' has no slots: the run history cannot know of a boot"
    return f"cron expression {text!r} is unknown; known are {', '.join(ALIASES)}"


def _fault_of_field(at: int, field: str, allowed: str) -> str | None:
    def alone(text: str) -> list[str]:
        return ["*"] * at + [text] + ["*"] * (len(_FIELDS) - at - 1)

    if not _is_readable(alone(field)):
        return f"allowed is {allowed}, with * , - and /"
    # cronsim reads 5-5/2 as 5/2, other crons as 5.
    for first, last in re.findall(r"(\w+)-(\w+)/", field):
        if len(getattr(_read(alone(f"{first}-{last}")), _SETS[at])) == 1:
            return (
                f"a range of one value has no steps: write {first}, or {first}/… to go on from it"
            )
    # */90 is meant as every 90 minutes, but no field can express that.
    values = getattr(_read(alone(field)), _SETS[at])
    if "/" in field and len(values) == 1:
        (value,) = values
        only = value if value >= 0 else field.partition("/")[0]
        return f"a step too wide for it, which leaves {only} alone: write {only}, or a smaller step"
    return None


def _is_readable(fields: list[str]) -> bool:
    try:
        _read(fields)
    except (CronSimError, ValueError, AssertionError):
        return False
    return True


def _read(fields: list[str]) -> CronSim:
    return CronSim(" ".join(fields), datetime(2000, 1, 1, tzinfo=UTC))
