"""A cron expression in a time zone: read once, refused with the place of the error, and the slots it has. No database.

The slots are those of Debian's cron. With a fixed minute and hour, a slot that a clock jumps over comes right after the
gap, and one that a clock shows twice comes once, the first time. With a star in either, a slot comes whenever the clock
shows it: never in a gap, twice where the clock shows it twice.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cached_property
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

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
)  # fmt: skip
_LONGEST = 200
# No clock was ever changed by more at once; what is found before the beginning is dropped.
_LARGEST_STEP = timedelta(hours=25)
# Within a day an offset changes once at most.
_DAY, _SECOND = timedelta(days=1), timedelta(seconds=1)


class BadSchedule(ValueError):
    """What is wrong with an expression or a zone, where, and what is allowed."""


@dataclass(frozen=True)
class Schedule:
    """An expression that has slots, in a zone that exists. Make it with `read_schedule`."""

    expression: str
    zone: str

    @cached_property
    def place(self) -> ZoneInfo:
        """The zone itself."""
        return ZoneInfo(self.zone)

    @property
    def words(self) -> str:
        """The expression in words: `At 03:30 every day`."""
        said: str = CronSim(self._five, datetime(2000, 1, 1, tzinfo=UTC)).explain()
        return said

    def slots_after(self, moment: datetime) -> Iterator[datetime]:
        """Every slot after `moment`, in UTC and in order, each once; ends when fifty years have none."""
        return self._by_wall(moment) if self._is_fixed else self._by_time(moment)

    def next(self, moment: datetime, number: int) -> list[datetime]:
        """The next slots after `moment`, as many as asked for if there are."""
        return list(islice(self.slots_after(moment), number))

    def slots_between(self, after: datetime, until: datetime, most: int) -> list[datetime]:
        """The slots after the one moment and up to the other, the first `most` of them."""
        coming = takewhile(lambda slot: slot <= until, self.slots_after(after))
        return list(islice(coming, most))

    @cached_property
    def _five(self) -> str:
        return ALIASES.get(self.expression.lower(), self.expression)

    @cached_property
    def _is_fixed(self) -> bool:
        """Whether it names its minutes and its hours, as Debian's cron tells wall clock from elapsed time."""
        return not any(field.startswith("*") for field in self._five.split()[:2])

    def _by_wall(self, moment: datetime) -> Iterator[datetime]:
        """What the wall clock shows for the first time; what it never shows comes when the gap is over."""
        last = moment
        for shown in self._shown_after(moment.astimezone(self.place) - _LARGEST_STEP):
            found = shown.replace(tzinfo=self.place).astimezone(UTC)
            if found.astimezone(self.place).replace(tzinfo=None) != shown:
                found = self._change_between(found - _DAY, found) or found
            # Two slots of one gap come at the same moment, and count as one.
            if found > last:
                last = found
                yield found

    def _by_time(self, moment: datetime) -> Iterator[datetime]:
        """Every moment at which the wall clock shows it: within a stretch of one offset, then the next stretch.

        Not as cronsim does it, which steps by hours of the wall clock and loses slots where it changes by half an hour.
        """
        begin: datetime | None = moment.astimezone(UTC)
        while begin is not None:
            begin = yield from self._within_offset(begin)

    def _within_offset(self, begin: datetime) -> Generator[datetime, None, datetime | None]:
        """The slots after `begin` until the offset changes; just before that moment, or None when no slot follows."""
        # Where a new stretch begins, `begin` is the moment before it, which has the old offset.
        offset = self._offset(begin + _SECOND)
        clear_until = begin + _SECOND
        for shown in self._shown_after(begin + offset):
            slot = shown.replace(tzinfo=UTC) - offset
            while clear_until < slot:
                if self._offset(clear_until + _DAY) != offset:
                    change = self._change_between(clear_until, clear_until + _DAY)
                    if change is not None and change <= slot:
                        return change - _SECOND
                    break
                clear_until += _DAY
            yield slot
        return None

    def _shown_after(self, begin: datetime) -> Iterator[datetime]:
        """What a wall clock without any change shows after `begin`, as naive times."""
        return iter(CronSim(self._five, begin.replace(tzinfo=None, fold=0)))

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self.place).utcoffset() or timedelta()

    def _change_between(self, begin: datetime, end: datetime) -> datetime | None:
        """The moment, to the second, from which the offset is that of `end`; None when it was so from the beginning."""
        offset = self._offset(end)
        if self._offset(begin) == offset:
            return None
        begin, end = begin.replace(microsecond=0), end.replace(microsecond=0)
        while end - begin > _SECOND:
            middle = begin + (end - begin) // _SECOND // 2 * _SECOND
            begin, end = (begin, middle) if self._offset(middle) == offset else (middle, end)
        return end


def read_schedule(expression: object, zone: object = "UTC") -> Schedule:
    """The schedule. Raises `BadSchedule` with every fault, where it is, and what is allowed there."""
    faults = [fault for fault in (_fault_of_zone(zone), _fault_of(expression)) if fault]
    if faults:
        raise BadSchedule("; ".join(faults))
    found = Schedule(" ".join(str(expression).split()), str(zone))
    if not found.next(datetime(2024, 1, 1, tzinfo=UTC), 1):
        raise BadSchedule(f"cron expression {found.expression!r} never comes")
    return found


def _fault_of_zone(zone: object) -> str | None:
    if isinstance(zone, str):
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
        else:
            return None
    known = available_timezones()
    close = get_close_matches(str(zone), known, n=1, cutoff=0.5)
    hint = f": did you mean {close[0]!r}?" if close else ", such as 'Europe/Paris' or 'UTC'"
    return f"zone {zone!r} is not the name of a time zone{hint}"


def _fault_of(expression: object) -> str | None:
    if not isinstance(expression, str) or not expression.strip():
        return f"a cron expression is a text such as '30 3 * * *', got {expression!r}"
    said = " ".join(expression.split())
    if len(said) > _LONGEST:
        return f"a cron expression has at most {_LONGEST} characters, got {len(said)}"
    if said.startswith("@"):
        return None if said.lower() in ALIASES else _fault_of_alias(said)
    fields = said.split()
    if len(fields) == 6:
        return (
            f"cron expression {said!r} has 6 fields: seconds are not supported, a slot is a minute"
        )
    if len(fields) != len(_FIELDS):
        return (
            f"cron expression {said!r} has {len(fields)} fields, it needs 5: "
            "minute, hour, day of the month, month, day of the week"
        )
    faults = [
        f"the field {name} is {field!r}, allowed is {allowed}, with * , - and /"
        for at, (field, (name, allowed)) in enumerate(zip(fields, _FIELDS, strict=True))
        if not _is_readable(["*"] * at + [field] + ["*"] * (len(_FIELDS) - at - 1))
    ]
    if not faults and not _is_readable(fields):
        faults = [f"the month {fields[3]!r} never has the day {fields[2]!r}"]
    return f"cron expression {said!r}: {'; '.join(faults)}" if faults else None


def _fault_of_alias(said: str) -> str:
    if said.lower() == "@reboot":
        return "cron expression '@reboot' has no slots: there is no boot that a ledger could know"
    return f"cron expression {said!r} is unknown; known are {', '.join(ALIASES)}"


def _is_readable(fields: list[str]) -> bool:
    try:
        CronSim(" ".join(fields), datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError, AssertionError):
        return False
    return True
