"""Finds lanes that wait although their limiter admits them and other jobs of their queue start."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from psycopg.rows import dict_row

from ...core import sql
from ...core.words import moment, span
from ...limits import bucket
from ...limits.stored_buckets import BucketSeen, list_buckets_to_dispatch
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words

# The statement looks at so many lanes.
_MOST_LANES = 2_000
_MOST_FINDINGS = 20
# How many times longer than usual the first job of a lane has waited.
_TIMES = 10
_READ_AGAIN = timedelta(minutes=10)


def _detect(facts: Facts) -> DetectorPass:
    with facts.connection.cursor(row_factory=dict_row) as cursor:
        values = {"now": facts.now, "limit": _MOST_LANES}
        waiting = cursor.execute(sql.load("detect_starving_lanes"), values).fetchall()
    lanes = _without_held(facts, waiting)
    usual = _usual_waits(facts, {row["queue"] for row in lanes})
    found = [
        _finding(row, usual[row["queue"]])
        for row in lanes
        if row["queue"] in usual and facts.now - row["due_at"] > _TIMES * usual[row["queue"]]
    ]
    return DetectorPass(found[:_MOST_FINDINGS], len(found) < _MOST_FINDINGS)


def _without_held(facts: Facts, lanes: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Leave out the lanes whose limiter does not admit their first job now."""
    limited = [row for row in lanes if row["limiter"] is not None]
    keys = [(row["limiter"], row["partition"]) for row in limited]
    seen = list_buckets_to_dispatch(facts.connection, keys, [row["queue"] for row in limited])
    held = {
        row["lane"]
        for row, each in zip(limited, seen, strict=True)
        if not _admits(each, row["weight"], facts.now)
    }
    return [row for row in lanes if row["lane"] not in held]


def _admits(seen: BucketSeen, weight: int, now: datetime) -> bool:
    if seen.shape is None:
        return False
    room = bucket.room(seen.shape, seen.level, now)
    return room is None or room >= weight


def _usual_waits(facts: Facts, queues: Collection[str]) -> dict[str, timedelta]:
    """The median wait of each queue within a day, to a factor of two. Read anew every ten minutes."""
    read_at, waits = facts.memory.get("usual_waits", (facts.now, {}))
    if not timedelta() <= facts.now - read_at < _READ_AGAIN:
        read_at, waits = facts.now, {}
    if missing := sorted(set(queues) - waits.keys()):
        histograms: dict[str, dict[int, int]] = {queue: {} for queue in missing}
        values = {"now": facts.now, "queues": missing}
        for queue, number, count in facts.connection.execute(
            sql.load("sum_waits_of_queues"), values
        ):
            histograms[queue][number] = count
        waits = waits | {queue: _median(found) for queue, found in histograms.items()}
    facts.memory["usual_waits"] = read_at, waits
    return {queue: usual for queue, usual in waits.items() if usual is not None}


def _median(histogram: Mapping[int, int]) -> timedelta | None:
    if not histogram:
        return None
    buckets = sorted(histogram)
    half = sum(histogram.values()) / 2
    until = accumulate(histogram[number] for number in buckets)
    median = next(number for number, so_far in zip(buckets, until, strict=True) if so_far >= half)
    # Bucket n holds the waits below 2 to the power of n milliseconds.
    return timedelta(milliseconds=2**median)


def _finding(row: Mapping[str, Any], usual: timedelta) -> Finding:
    due = row["due_at"].isoformat()
    return Finding(
        subject=f"lane/{row['lane']}",
        affected=1,
        facts={
            "lane": row["lane"],
            "queue": row["queue"],
            "limiter": row["limiter"],
            "jobs": [row["id"]],
            "due_at": due,
            "usual_seconds": usual.total_seconds(),
        },
        evidence=(Observation("first_job", "detect", {"job": row["id"], "due_at": due}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    since = moment(datetime.fromisoformat(facts["due_at"]))
    lane = facts["queue"]
    if facts["limiter"] is not None:
        lane += f", limiter {facts['limiter']}"
    return Words(
        title=f"The first job of the queue {lane} does not start",
        why=f"It has been due since {since}, while other jobs of the queue start. Usually a job waits "
        f"{span(facts['usual_seconds'])}.",
    )


DETECTOR = Detector(
    class_="lane_starving",
    title="Jobs that others overtake",
    severity="warning",
    found_when="the first due job of a queue, or of a partition of it, has waited for a minute and for ten "
    "times the median of a day, its limiter admits it, and other jobs of its queue start",
    near_miss="a limiter at its declared rate; a long queue that moves; a cooldown; a paused queue or task",
    say=_say,
    detect=_detect,
    open_after=timedelta(seconds=30),
    repairs=("limiter.clear", "queue.set_prefetch"),
)
