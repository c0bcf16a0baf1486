"""Tells of a limiter: its declarations, cooldowns and rejections, and what it admitted in the last day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from ...core.history import Event
from ...core.round_trips import start_reading
from ...core.words import counted, moment
from ...limits import actions as limit_actions
from ...limits.queries import (
    CurrentCooldown,
    HolderRow,
    LimiterRow,
    RejectionRow,
    find_limiter,
    find_minutes,
    has_minutes,
    list_cooling_partitions,
    list_holders,
    list_rejections,
)
from ...limits.words import in_words
from ..bundle import (
    Column,
    EvidenceTable,
    Inquiry,
    Kind,
    LeftOut,
    Related,
    TableRow,
    Told,
    WatchedSpan,
)

# `list_rejections` reads so many, `list_cooling_partitions` and `list_holders` so many.
_MOST_REJECTIONS, _MOST_PARTITIONS = 10, 25
Minutes = Mapping[datetime, tuple[int, int, int]]


def _read_key(key: str) -> str | None:
    """The name of a limiter: a partition is a value of jobs' arguments, and no subject."""
    return None if "/" in key or limit_actions.read_target(f"limiter/{key}") is None else key


def _tell(inquiry: Inquiry) -> Told | None:
    session, name = inquiry.session, inquiry.key
    listing = start_reading(session, list_rejections, name)
    holding = start_reading(session, list_holders, name, None)
    counting = start_reading(session, find_minutes, name, inquiry.day_ago)
    finding_cooling = start_reading(session, list_cooling_partitions, name, inquiry.now)
    limiter = find_limiter(session, name, inquiry.now)
    if limiter is None:
        return None
    minutes, rejections, cooling = counting.value, listing.value, finding_cooling.value
    since = _find_begin(inquiry, limiter, minutes, rejections)
    return Told(
        title=f"Limiter {limiter.name}",
        state="cooling down" if limiter.cooldown else "open",
        diagnosis=_diagnose(limiter),
        since=since,
        until=inquiry.now,
        events=[
            *_of_declaration(limiter, since),
            *_of_cooldowns(limiter, cooling),
            *_of_rejections(rejections),
        ],
        watches=[
            WatchedSpan(
                "roll_up",
                "How many jobs it admitted is not counted.",
                _counted_until(limiter, minutes, since),
                inquiry.now,
            )
        ],
        evidence=[_by_hour(minutes), _make_holders(holding.value)],
        related=[
            Related("Cools down", "a partition", None, moment(each.until)) for _, each in cooling
        ],
        left_out=_list_left_out(rejections, cooling),
    )


def _find_begin(
    inquiry: Inquiry, limiter: LimiterRow, minutes: Minutes, rejections: Sequence[RejectionRow]
) -> datetime:
    """A day ago, or the oldest thing that is known of it."""
    known = [limiter.declared_at, *minutes, *(rejection.at for rejection in rejections)]
    return max(min(known), inquiry.day_ago)


def _counted_until(limiter: LimiterRow, minutes: Minutes, since: datetime) -> datetime:
    """Until when its counts are summed up by minute: its first minute began before it was declared."""
    return max([*minutes, since, limiter.declared_at])


def _diagnose(limiter: LimiterRow) -> str:
    if limiter.cooldown is not None:
        reason = f": “{limiter.cooldown.reason}”" if limiter.cooldown.reason else "."
        until = moment(limiter.cooldown.until)
        return f"{limiter.cooldown.by} lets it cool down until {until}{reason}"
    waits = counted(limiter.waiting, "job")
    holds = counted(limiter.holders, "job")
    return (
        f"It admits {in_words(limiter.shape, limiter.partition_by)}: {waits} wait, and {holds} run."
    )


def _of_declaration(limiter: LimiterRow, since: datetime) -> Iterator[Event]:
    if limiter.changed_at is not None and limiter.changed_at >= since:
        before = ", ".join(
            f"{name} {value}"
            for name, value in (limiter.previous or {}).items()
            if value is not None
        )
        text = f"Declared anew: {in_words(limiter.shape, limiter.partition_by)}"
        yield Event(limiter.changed_at, "seen", f"{text}. Before: {before}", limiter.declared_by)
    elif limiter.declared_at >= since:
        text = f"Declared: {in_words(limiter.shape, limiter.partition_by)}"
        yield Event(limiter.declared_at, "seen", text, limiter.declared_by)


def _of_cooldowns(
    limiter: LimiterRow, cooling: Sequence[tuple[str, CurrentCooldown]]
) -> Iterator[Event]:
    """Those that are in effect; the audit tells of earlier ones."""
    every = [(None, limiter.cooldown)] if limiter.cooldown else []
    for partition, cooldown in (*every, *cooling):
        text = f"{cooldown.by} lets {'it' if partition is None else 'a partition'} cool down"
        yield Event(
            cooldown.at,
            "paused",
            text,
            "operator",
            payload=partition,
            label=cooldown.reason,
            until=cooldown.until,
        )


def _of_rejections(rejections: Sequence[RejectionRow]) -> Iterator[Event]:
    for rejection in rejections:
        why = rejection.code.removeprefix("limit_")
        text = f"Rejected a call of {rejection.task}: {why}"
        payload = rejection.partition or None
        subject = f"task/{rejection.task}"
        yield Event(rejection.at, "refused", text, "host", payload=payload, subject=subject)


def _by_hour(minutes: Minutes) -> EvidenceTable:
    hours: dict[datetime, list[int]] = {}
    for minute, numbers in minutes.items():
        hour = hours.setdefault(minute.replace(minute=0), [0, 0, 0])
        for place, number in enumerate(numbers):
            hour[place] += number
    columns = [Column("hour", "moment")]
    columns += [Column(name, "number") for name in ("admitted", "taken back", "rejected")]
    rows = [TableRow((hour, *hours[hour])) for hour in sorted(hours, reverse=True)]
    return EvidenceTable("Jobs by hour", columns, rows)


def _make_holders(holders: Sequence[HolderRow]) -> EvidenceTable:
    columns = (
        Column("job"),
        Column("partition", "payload"),
        Column("weight", "number"),
        Column("since", "moment"),
        Column("state"),
        Column("worker"),
    )
    rows = [
        TableRow(
            (
                str(holder.job_id),
                holder.partition or None,
                holder.weight,
                holder.taken_at,
                holder.state or "deleted",
                holder.worker,
            ),
            f"job/{holder.job_id}",
        )
        for holder in holders
    ]
    is_cut = len(holders) == _MOST_PARTITIONS
    return EvidenceTable(
        "Jobs that hold a place", columns, rows, LeftOut("jobs") if is_cut else None
    )


def _list_left_out(
    rejections: Sequence[RejectionRow], cooling: Sequence[tuple[str, CurrentCooldown]]
) -> Sequence[LeftOut]:
    found = []
    if len(rejections) == _MOST_REJECTIONS:
        found.append(LeftOut("rejections", before=rejections[-1].at))
    if len(cooling) == _MOST_PARTITIONS:
        found.append(LeftOut("partitions that cool down"))
    return found


def _was_there(inquiry: Inquiry) -> bool:
    """Whether it ever admitted a job in a minute that is still stored."""
    return has_minutes(inquiry.session, inquiry.key)


KIND = Kind("limiter", "limiters.view", _read_key, _tell, _was_there)
