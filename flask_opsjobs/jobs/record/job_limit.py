"""Finds the limiter, partition and lane of a call, and rejects the call early when its limiter is full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from ... import signals
from ...core.after_commit import after_rollback_too
from ...core.signing import sign
from ...errors import InvalidArgs, LimitReached
from ...host import Host
from ...limits import bucket, stored_buckets
from ...limits import transitions as limit_transitions
from ...limits.limit import BadJobLimit, JobLimit, Limit, lane_of
from ...limits.stored_buckets import BucketSeen
from ...limits.transitions import Rejection
from .declaration import TaskDeclaration
from .options import Options


def job_limit_of(
    task: TaskDeclaration, limit: Limit, host: Host, values: Mapping[str, Any]
) -> JobLimit:
    """The limiter, partition and weight of a call.

    Raises `InvalidArgs` when partition or weight cannot be computed. A partition is part of the lane and is
    shown on many pages: when the display policy hides the argument, a keyed hash of its value is stored
    instead.
    """
    arguments = task.arguments.with_defaults(values)
    found = None
    try:
        job_limit = limit.of_job(arguments)
    except BadJobLimit as why:
        found = {"loc": why.what, "msg": str(why), "type": "limit"}
    else:
        named = limit.partition
        is_secret = job_limit.partition and isinstance(named, str) and _is_hidden(host, named)
        return (
            job_limit._replace(partition=_hash(host, job_limit.partition))
            if is_secret
            else job_limit
        )
    # Outside of `except`: the error of a host's function must not become the context of this one.
    raise InvalidArgs(task.name, [found])


def _is_hidden(host: Host, argument: str) -> bool:
    try:
        return bool(host.display.is_hidden_key(argument))
    except Exception:
        return True  # as everywhere: when the policy raises, the value is hidden


def _hash(host: Host, partition: str) -> str:
    return "#" + sign(host.secrets[0], "hidden partition", partition.encode(), 12).hex()


def columns_of(queue: str, job_limit: JobLimit) -> dict[str, Any]:
    """The columns that a limit sets: lane, limiter, partition, weight."""
    return {"lane": lane_of(queue, job_limit), **job_limit._asdict()}


class RejectWhenFull:
    """Rejects an enqueue whose limiter is full (policy `reject`).

    In `enqueue_many` it counts earlier rows too. Reads without a lock, so two calls at the same moment may
    both pass. Then the claim decides again.
    """

    def __init__(
        self, task: TaskDeclaration, options: Options, host: Host, session: Session
    ) -> None:
        self._task = task
        self._host = host
        self._session = session
        limit = options.limit
        self.is_open = limit is None or limit.when_full == "hold" or not options.is_due_now
        self._limit = limit
        self._seen: dict[tuple[str, str], BucketSeen] = {}
        self._passed: dict[tuple[str, str], int] = {}

    def find_rejection(self, connection: Connection, job_limit: JobLimit) -> Rejection | None:
        """Why a call is rejected; None when it may pass, and is counted for the calls after it."""
        if self.is_open or self._limit is None:
            return None
        key = (job_limit.limiter, job_limit.partition)
        if key not in self._seen:
            self._seen[key] = stored_buckets.get_bucket(connection, *key, with_waiting=True)
        seen = self._seen[key]
        ahead = seen.level.queued + seen.waiting + self._passed.get(key, 0)
        # Before any worker has started, no declaration is stored: then this process's own counts.
        shape = seen.shape or self._limit.shape
        rejection = self._judge(shape, seen, job_limit, ahead)
        if rejection is None:
            self._passed[key] = self._passed.get(key, 0) + job_limit.weight
        return rejection

    def make_error(self, rejection: Rejection) -> LimitReached:
        """The error of a rejected call. Its evidence is written after the host's commit or rollback."""
        after_rollback_too(self._session, self._keep, rejection)
        return LimitReached(self._task.name, rejection.limiter, rejection.partition, rejection.code)

    def _judge(
        self, shape: bucket.Shape, seen: BucketSeen, job_limit: JobLimit, ahead: int
    ) -> Rejection | None:
        """Why the call is rejected if it and all jobs ahead of it start now; None when it may pass."""
        verdict = bucket.admit(shape, seen.level, ahead + job_limit.weight, seen.now)
        if verdict.is_admitted and verdict.wait_seconds == 0:
            return None
        code = verdict.blocks[0].code if verdict.blocks else bucket.TOKENS
        if code == bucket.WEIGHT:
            # The call and the jobs ahead of it together weigh more than can ever start at once.
            code = bucket.CONCURRENCY if shape.most == shape.concurrency else bucket.TOKENS
        level = seen.level
        read = {
            "tokens": None if shape.rate is None else bucket.tokens_at(shape, level, seen.now),
            "in_use": level.in_use,
            "ahead": ahead,
            "cooldown_until": level.cooldown_until and level.cooldown_until.isoformat(),
            "concurrency": shape.concurrency,
            "burst": shape.burst,
        }
        return Rejection(
            seen.now,
            job_limit.limiter,
            job_limit.partition,
            self._task.name,
            job_limit.weight,
            code,
            read,
        )

    def _keep(self, rejections: list[Rejection]) -> None:
        with signals.sent_by(self._host), self._host.spare.one() as connection:
            limit_transitions.reject(connection, rejections)
