"""Counts failed attempts into failures, for the roll_up loop, and opens failures again.

Each failed attempt is counted once, however late it was recorded: its row says whether it is counted. It
counts to the time at which it ended.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection
from ..core.display import Display
from ..host import Host
from ..jobs import host_code
from ..jobs.failure_key import key_of_others, merge_messages
from .fix import Fix, Ran, has_fix
from .frames import read_frames, say_where

# So many attempts a pass.
MOST = 5_000
# So many failures of a task may be new in an hour. What is more is one failure, "other".
NEW_PER_HOUR = 200
# How long "resolved in the next deploy" holds without a deploy.
HELD_FOR = timedelta(days=14)
_LONGEST_TITLE = 200
# Deploys and deaths of so long are looked at: a worker that vanished is given up minutes later.
_LOOKED_BACK = timedelta(hours=1)


@dataclass(frozen=True)
class FailedAttempt:
    """A failed attempt that is not counted yet. `is_last`: its job ended `failed` by it."""

    job_id: int
    dispatch_no: int
    key: bytes
    task: str
    outcome: str
    started_at: datetime
    ended_at: datetime
    death: str | None
    peak_kb: int | None
    limit_kb: int | None
    deploy_id: int | None
    worker_started_at: datetime | None
    is_last: bool

    @property
    def ran(self) -> Ran:
        """Where and when it ran."""
        return Ran(self.started_at, self.deploy_id, self.worker_started_at)


@dataclass(frozen=True)
class KnownFailure:
    """A failure as it is stored, as far as counting decides by it."""

    id: int
    key: bytes
    state: str
    title: str
    last_at: datetime
    decided_at: datetime | None
    resolved_in: int | None
    resolved_after: int | None

    @property
    def fix(self) -> Fix | None:
        """Where it is resolved; None when it is not."""
        if self.state != "resolved" or self.decided_at is None:
            return None
        return Fix(self.decided_at, self.resolved_in, self.resolved_after)


@dataclass
class _Group:
    """The attempts of a pass with the same key. `is_other`: they could not be told apart."""

    key: bytes
    is_other: bool = False
    known: KnownFailure | None = None
    attempts: list[FailedAttempt] = field(default_factory=list)

    @property
    def newest(self) -> FailedAttempt:
        return max(self.attempts, key=lambda attempt: attempt.ended_at)


class _Sample(NamedTuple):
    error: str | None
    traceback: str | None


def infer_deploy_deaths(connection: Connection, now: datetime) -> int:
    """Give deaths around a deploy this cause, once its workers were seen; return how many.

    `infer_deploy_deaths.sql` says which. The caller commits.
    """
    row = connection.execute(
        sql.load("infer_deploy_deaths"), {"since": now - _LOOKED_BACK}
    ).fetchone()
    return row[0] if row else 0


def count_failures(connection: Connection, host: Host, now: datetime) -> int:
    """Count up to `MOST` failed attempts, the oldest first; return how many. The caller commits.

    A resolved failure that fails on a worker with the fix is opened again, and so is one of which the
    decision has lapsed. Only one process may do so at a time. Locks the attempts, then the failures in id
    order.
    """
    with connection.cursor(row_factory=class_row(FailedAttempt)) as cursor:
        attempts = cursor.execute(sql.load("take_uncounted"), {"limit": MOST}).fetchall()
    if attempts:
        groups = _group(connection, attempts, now)
        ids = _write(connection, host, groups, now)
        _add_counts(connection, groups, ids)
        _add_deaths(connection, attempts)
        _mark(connection, groups)
        _regress(connection, groups)
    held_since = now - HELD_FOR
    connection.execute(sql.load("lapse_failures"), {"now": now, "held_since": held_since})
    return len(attempts)


def _group(
    connection: Connection, attempts: Iterable[FailedAttempt], now: datetime
) -> Sequence[_Group]:
    groups: dict[bytes, _Group] = {}
    for attempt in attempts:
        groups.setdefault(attempt.key, _Group(attempt.key)).attempts.append(attempt)
    tasks = {attempt.task for group in groups.values() for attempt in group.attempts}
    keys_of_others = {task: bytes.fromhex(key_of_others(task)) for task in tasks}
    # In one statement, in id order: whether some become "other" is known only afterwards.
    known = _lock(connection, {*groups, *keys_of_others.values()})
    new = [group for key, group in groups.items() if key not in known]
    room = _find_room(connection, {group.newest.task for group in new}, now)
    others: dict[bytes, _Group] = {}
    for group in new:
        task = group.newest.task
        if room[task] > 0:
            room[task] -= 1
            continue
        del groups[group.key]
        key = keys_of_others[task]
        others.setdefault(key, _Group(key, is_other=True)).attempts += group.attempts
    for key, group in others.items():
        # Attempts may have been counted under this key before.
        groups.setdefault(key, group)
    for key, group in groups.items():
        group.known = known.get(key)
    return list(groups.values())


def _lock(connection: Connection, keys: Iterable[bytes]) -> dict[bytes, KnownFailure]:
    if not (wanted := list(keys)):
        return {}
    with connection.cursor(row_factory=class_row(KnownFailure)) as cursor:
        cursor.execute(sql.load("lock_failures_of_keys"), {"keys": wanted})
        return {failure.key: failure for failure in cursor}


def _find_room(connection: Connection, tasks: Iterable[str], now: datetime) -> dict[str, int]:
    """By task, how many failures may be new in what is left of this hour."""
    wanted = list(tasks)
    since = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    rows = connection.execute(sql.load("count_new_failures"), {"tasks": wanted, "since": since})
    found: dict[str, int] = dict(rows.fetchall())
    return {task: NEW_PER_HOUR - found.get(task, 0) for task in wanted}


def _write(
    connection: Connection, host: Host, groups: Sequence[_Group], now: datetime
) -> Mapping[bytes, int]:
    samples = _read_samples(connection, groups)
    display = Display(host.display, may_see=True)
    rows = [_row(host, display, group, samples.get(group.newest)) for group in groups]
    parameters = {"failures": json.dumps(rows, default=str), "now": now}
    return dict(connection.execute(sql.load("count_failures"), parameters).fetchall())


def _read_samples(
    connection: Connection, groups: Iterable[_Group]
) -> Mapping[FailedAttempt, _Sample]:
    """The errors of the newest attempts; a traceback only for a failure that is new."""
    newest = {(group.newest.job_id, group.newest.dispatch_no): group for group in groups}
    parameters = {
        "job_ids": [job_id for job_id, _ in newest],
        "dispatch_nos": [number for _, number in newest],
        "in_full": [group.known is None for group in newest.values()],
    }
    rows = connection.execute(sql.load("read_samples"), parameters)
    return {
        newest[job_id, number].newest: _Sample(error, traceback)
        for job_id, number, error, traceback in rows
    }


def _row(host: Host, display: Display, group: _Group, sample: _Sample | None) -> dict[str, Any]:
    """The failure as it is stored: what pages hide is hidden before."""
    attempts, newest = group.attempts, group.newest
    error, traceback = sample or _Sample(None, None)
    last = [attempt.ended_at for attempt in attempts if attempt.is_last]
    deploys = [attempt.deploy_id for attempt in attempts if attempt.deploy_id is not None]
    return {
        "key": group.key.hex(),
        "task": newest.task,
        "type": None if group.is_other else _type_of(newest, error),
        "title": _title(display, group, error),
        "raised_in": None if group.is_other else _place(host, display, newest.task, traceback),
        "job_id": newest.job_id,
        "dispatch_no": newest.dispatch_no,
        "number": len(attempts),
        "jobs": len(last),
        "job_failed_at": max(last, default=None),
        "first_at": min(attempt.ended_at for attempt in attempts),
        "last_at": newest.ended_at,
        "first_deploy": min(deploys, default=None),
        "last_deploy": max(deploys, default=None),
    }


def _title(display: Display, group: _Group, error: str | None) -> str:
    newest = group.newest
    if group.is_other:
        return f"other failures: more than {NEW_PER_HOUR} were new in an hour"
    if newest.death is not None and newest.outcome in ("died", "lost"):
        # Of a known one the cause may have become `deploy` since it was counted.
        return (
            group.known.title
            if group.known
            else f"{newest.outcome}: {newest.death.replace('_', ' ')}"
        )
    title = display.start(error or newest.outcome, _LONGEST_TITLE)
    if group.known is None:
        return title
    return merge_messages(display.start(group.known.title, _LONGEST_TITLE), title)


def _type_of(attempt: FailedAttempt, error: str | None) -> str | None:
    """The type of the exception, with which the error begins."""
    if attempt.outcome not in ("raised", "timed_out") or error is None:
        return None
    name = error.partition(":")[0]
    return name if all(part.isidentifier() for part in name.split(".")) else None


def _place(host: Host, display: Display, task: str, traceback: str | None) -> str | None:
    place = say_where(read_frames(traceback, find_package(host, task)))
    return None if place is None else display.clean(place)


def find_package(host: Host, task: str) -> str:
    """The top-level package of a task's function; "" for a task that this process does not know."""
    declared = host.performable.get(task)
    return "" if declared is None else host_code.package_of(declared.function)


def _add_counts(connection: Connection, groups: Iterable[_Group], ids: Mapping[bytes, int]) -> None:
    spans: dict[tuple[int, datetime, int], list[datetime]] = {}
    for group in groups:
        for attempt in group.attempts:
            minute = attempt.ended_at.replace(second=0, microsecond=0)
            where = (ids[group.key], minute, attempt.deploy_id or 0)
            spans.setdefault(where, []).append(attempt.ended_at)
    counts = [
        {
            "failure_id": failure_id,
            "minute": minute,
            "deploy_id": deploy_id,
            "number": len(times),
            "first_at": min(times),
            "last_at": max(times),
        }
        for (failure_id, minute, deploy_id), times in spans.items()
    ]
    parameters = {"counts": json.dumps(counts, default=str)}
    connection.execute(sql.load("add_failure_counts"), parameters)


def _add_deaths(connection: Connection, attempts: Iterable[FailedAttempt]) -> None:
    numbers: Counter[tuple[str, datetime, str]] = Counter()
    peaks: dict[tuple[str, datetime, str], int] = {}
    limits: dict[tuple[str, datetime, str], int] = {}
    for attempt in attempts:
        if attempt.death is None:
            continue
        day = attempt.ended_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        key = (attempt.task, day, attempt.death)
        numbers[key] += 1
        if attempt.peak_kb is not None:
            peaks[key] = max(attempt.peak_kb, peaks.get(key, 0))
        if attempt.limit_kb is not None:
            limits[key] = attempt.limit_kb
    if not numbers:
        return
    deaths = [
        {
            "task": key[0],
            "day": key[1],
            "death": key[2],
            "number": number,
            "peak_kb": peaks.get(key),
            "limit_kb": limits.get(key),
        }
        for key, number in numbers.items()
    ]
    connection.execute(sql.load("add_task_deaths"), {"deaths": json.dumps(deaths, default=str)})


def _mark(connection: Connection, groups: Iterable[_Group]) -> None:
    counted = [(attempt, group.key) for group in groups for attempt in group.attempts]
    parameters = {
        "job_ids": [attempt.job_id for attempt, _ in counted],
        "dispatch_nos": [attempt.dispatch_no for attempt, _ in counted],
        "keys": [key for _, key in counted],
        "deploy_ids": [attempt.deploy_id for attempt, _ in counted],
    }
    connection.execute(sql.load("mark_counted"), parameters)


def _regress(connection: Connection, groups: Iterable[_Group]) -> None:
    """Open the failures again of which an attempt had the fix."""
    found = []
    for group in groups:
        fix = group.known.fix if group.known is not None else None
        if fix is None or group.known is None:
            continue
        fixed = [attempt for attempt in group.attempts if has_fix(attempt.ran, fix)]
        if fixed:
            first = min(fixed, key=lambda attempt: attempt.ended_at)
            found.append((group.known.id, first))
    if found:
        parameters = {
            "ids": [id for id, _ in found],
            "ats": [first.ended_at for _, first in found],
            "deploy_ids": [first.deploy_id for _, first in found],
        }
        connection.execute(sql.load("regress_failures"), parameters)
