"""Shows the list of limiters, and the page of a limiter or of one of its partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from flask import Response, redirect, request, url_for
from markupsafe import Markup
from werkzeug import Response as AnyResponse

from ...actions.domain import Action
from ...actions.registry import ACTIONS, actions_of
from ...audit.queries import list_events_of
from ...audit.verify import find_chain_fault
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...jobs.rows import Count
from ...limits import queries as limits
from ...limits.actions import make_target, state_of
from ...limits.queries import (
    MOST_COUNTED,
    BucketState,
    LimiterRow,
    has_partition,
    list_hot_partitions,
)
from ...limits.words import BLOCKS, in_words
from ...overview.pace_queries import Pace, find_counted, find_counted_until, find_pace
from ..app import access, order, pages, problems, references
from ..app.chart import Chart
from ..app.charts import rate_chart
from ..app.host import host, reading


@dataclass(frozen=True)
class LimiterView:
    """A limiter as the list shows it. `bucket` is None when each partition has a bucket of its own."""

    row: LimiterRow
    bucket: BucketState | None

    @property
    def actions(self) -> Sequence[Action[Any]]:
        """The actions that are legal now, except `cooldown`, which has a form."""
        return _plain(self.row.cooldown is not None)


@dataclass(frozen=True)
class LimiterRequest:
    """The subject of a page: a limiter, or its partition; a `partition` of None means the whole limiter."""

    row: LimiterRow
    partition: str | None

    @property
    def target(self) -> str:
        """Its name for the access policy and the audit."""
        return make_target(self.row.name, self.partition)

    @property
    def reference(self) -> str | None:
        """The reference to the partition in an address; None without one."""
        if self.partition is None:
            return None
        return references.make_reference(host().secrets[0], self.row.name, self.partition)

    @property
    def bucket(self) -> str | None:
        """The partition whose bucket is shown, `""` for an unpartitioned one; None when there are several."""
        if self.partition is None and self.row.partition_by is None:
            return ""
        return self.partition


# The columns by which the list can be ordered.
KEYS: order.Keys = {
    "name": lambda shown: shown.row.name,
    "allows": lambda shown: in_words(shown.row.shape, shown.row.partition_by),
    "tokens": lambda shown: shown.bucket.tokens if shown.bucket and shown.row.shape.rate else None,
    "next": lambda shown: shown.bucket and shown.bucket.next_seconds,
    "running": lambda shown: shown.row.holders,
    "queued": lambda shown: shown.row.queued,
    "waiting": lambda shown: shown.row.waiting,
    "started": lambda shown: shown.row.admitted,
    "recalled": lambda shown: shown.row.recalled,
    "rejected": lambda shown: shown.row.rejected,
}


def page() -> Response:
    """The document of all limiters."""
    made, now, query = _all()
    return pages.page("limiters/page.html", "limiters", "Limiters", now, live=made, query=query)


def live() -> Response:
    """The fragment of it that refreshes."""
    return pages.fragment(_all()[0])


def limiter_page(limiter: str) -> Response:
    """The document of one limiter or partition, with the form that cools it down."""
    with reading() as read:
        asked, made = _one(read, limiter)
    return pages.page(
        "limiter/page.html",
        "limiters",
        limiter,
        read.now,
        live=made,
        query={} if asked.partition is None else {"partition": asked.partition},
        asked=asked,
        cool_down=ACTIONS["limiter.cooldown"],
    )


def limiter_live(limiter: str) -> Response:
    """The fragment of it that refreshes."""
    with reading() as read:
        _, made = _one(read, limiter)
    return pages.fragment(made)


def open_partition(limiter: str) -> AnyResponse:
    """Redirect to the page of the partition that was typed."""
    typed = request.form.get("partition", "")
    if "\0" in typed or len(typed) > references.LONGEST_PARTITION:
        raise problems.unreadable(
            f"partition: a text of at most {references.LONGEST_PARTITION} characters."
        )
    return redirect(url_for("opsjobs.limiter", limiter=limiter, partition=typed), 303)


def _all() -> tuple[Markup, datetime, Mapping[str, str]]:
    asked = order.read_order(KEYS, texts=("name", "allows"))
    with reading() as read:
        counting = start_reading(read.session, find_counted_until)
        rows = limits.list_limiters(read.session, read.now)
        buckets = limits.list_whole_buckets(read.session, rows)
        shown = [LimiterView(row, buckets.get(row.name)) for row in rows]
        counted_until = counting.value
    made = pages.part(
        "limiters/_live.html",
        read.now,
        limiters=asked.apply(shown, KEYS),
        order=asked,
        is_cut=len(rows) >= limits.MOST_LIMITERS,
        counted_until=counted_until,
        **_words(),
    )
    return made, read.now, asked.all_query


def find_asked(read: Reading, name: str) -> LimiterRequest:
    """The limiter and the partition in the current address. Raises `Problem` when they do not exist."""
    asked = _find(read, name)
    if not has_partition(read.session, asked.row, asked.partition or ""):
        raise _no_partition(name)
    return asked


def _find(read: Reading, name: str) -> LimiterRequest:
    partition = references.asked_partition()
    row = limits.find_limiter(read.session, name, read.now)
    if row is None:
        raise problems.no_such_limiter(name)
    return LimiterRequest(row, partition)


def _no_partition(limiter: str) -> problems.Problem:
    return problems.unreadable(
        f"partition: the limiter {limiter} has none, and no job waits or runs in this one."
    )


def _one(read: Reading, name: str) -> tuple[LimiterRequest, Markup]:
    session, partition = read.session, references.asked_partition()
    # The decisions and the charts need more than one answer, so they do not wait for the limiter.
    events = fault = waiters = waiting = None
    if access.may("audit.view"):
        events = start_reading(session, list_events_of, make_target(name, partition))
        fault = start_reading(session, find_chain_fault)
    counted = start_reading(session, find_counted)
    pacing = start_reading(session, find_pace, "hour", read.now, counted.value)
    asked = _find(read, name)
    row = asked.row
    existing = start_reading(session, has_partition, row, partition or "")
    if asked.bucket is not None:
        waiters = start_reading(session, limits.list_waiters, row.name, asked.bucket)
        waiting = start_reading(session, limits.count_waiters, row.name, asked.bucket)
    heating = start_reading(session, list_hot_partitions, row, partition)
    more: dict[str, Any] = {
        "holders": start_reading(session, limits.list_holders, row.name, partition),
        "cooling": start_reading(session, limits.list_cooling_partitions, row.name, read.now)
        if partition is None
        else (),
        "rejections": start_reading(session, limits.list_rejections, row.name)
        if partition is None
        else (),
    }
    pace = replace(pacing.value, before=())
    counting = start_reading(session, limits.find_minutes, row.name, pace.steps[0].start)
    bucket = None if asked.bucket is None else limits.find_bucket(session, row, asked.bucket)
    if not existing.value:
        raise _no_partition(name)
    hot, is_cut = heating.value
    cooldown = row.cooldown if partition is None else bucket and bucket.cooldown
    minutes = counting.value
    charts = _make_charts(pace, minutes, rejects=row.when_full == "reject")
    return asked, pages.part(
        "limiter/_live.html",
        read.now,
        asked=asked,
        row=row,
        bucket=bucket,
        cooldown=cooldown,
        actions=_plain(cooldown is not None),
        waiters=waiters or (),
        waiting=waiting or row.waiting,
        hot=hot,
        is_cut=is_cut,
        release=ACTIONS["lease.release"],
        events=events,
        chain_fault=fault,
        charts=charts,
        has_uncounted=any(chart.uncounted for chart in charts),
        **more,
        **_words(),
    )


def _words() -> dict[str, Any]:
    """The functions and texts that all templates of limiters use."""

    def when(bucket: BucketState) -> datetime | None:
        seconds = bucket.next_seconds
        return None if seconds is None else bucket.seen.now + timedelta(seconds=seconds)

    def capped(number: int) -> Count:
        return Count(number, "at_least" if number >= MOST_COUNTED else "exact")

    return {"in_words": in_words, "blocked": BLOCKS, "when": when, "capped": capped}


def _plain(is_cooling: bool) -> Sequence[Action[Any]]:
    legal = actions_of("limiter", state_of(is_cooling))
    return [action for action in legal if not action.params]


# (key, title, text beside the number, whether it is bad).
_KINDS = (
    ("admitted", "Started", "let start a minute", False),
    ("recalled", "Recalled", "recalled at the claim a minute", False),
    ("rejected", "Rejected", "rejected at enqueue a minute", True),
)


def _make_charts(
    pace: Pace, minutes: Mapping[datetime, tuple[int, int, int]], *, rejects: bool
) -> list[Chart]:
    """The charts of a limiter. Rejections have one only if it rejects or did so in this hour.

    Minutes that nobody counted, according to `pace`, are gaps.
    """
    has_rejected = any(counted[2] for counted in minutes.values())
    charts = []
    for at, (key, title, what, is_bad) in enumerate(_KINDS):
        if is_bad and not (rejects or has_rejected):
            continue
        values = [
            None if step.finished is None else minutes.get(step.start, (0, 0, 0))[at]
            for step in pace.steps
        ]
        charts.append(rate_chart(pace, key, title, what, values, bars=is_bad))
    return charts
