"""Decides which workers are late or missing, rescues their jobs, and describes the rescues for the audit."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row, dict_row

from .. import endings
from ..audit import transitions as audit_transitions
from ..audit.transitions import Decision
from ..core import sql
from ..core.db import Connection
from ..endings import MovedJob
from ..settings import Settings
from ..workers.lost_worker import LostWorker
from ..workers.process_identity import ProcessIdentity, identify

# At most this many jobs are rescued in a pass; a pass that reaches the limit is repeated at once.
_MOST_RESCUED = 1000
# The cause when this machine knows that the worker's process has ended.
_GONE = "worker vanished: its process is gone"
# A pass may rescue a thousand jobs. Its audit row lists this many ids, and the number of all.
MOST_NAMED = 100


@dataclass(frozen=True)
class AbandonedJobs(LostWorker):
    """What a worker left behind that has ended or is unknown.

    `jobs` is how many `started` ones, `reserved` how many it had taken and not begun.
    """

    jobs: int
    reserved: int
    last_claim_at: datetime | None


@dataclass(frozen=True)
class Watched:
    """The result of a pass: the rescued jobs, and names of workers that became late, missing or alive again.

    `well` are those alive again. `abandoned` is the number of jobs of dead workers that were not rescued.
    """

    late: list[str]
    missing: list[str]
    well: list[str]
    rescued: list[MovedJob]
    abandoned: int
    has_more: bool


def watch(
    connection: Connection,
    now: datetime,
    elapsed_seconds: float,
    settings: Settings,
    secrets: Sequence[bytes],
    *,
    after_commit: Callable[[Callable[[], None]], object] | None = None,
) -> Watched:
    """Judge our workers; rescue abandoned jobs when `OPSJOBS_RESCUE` is automatic, escalations always.

    The caller commits. `elapsed_seconds` is the time since the previous pass of any watch loop. At most
    two intervals of it count, because a loop that was asleep did not see whether heartbeats came. A
    negative time, from a clock that was stepped back, counts as 0. All rescued jobs of a pass are one row
    of the audit, signed with `secrets`; `after_commit` is passed to `append` of the audit. When the audit
    cannot be written, the row waits in Postgres until a later pass can. Locks workers, then jobs by id,
    then the head of the audit.
    """
    gone = _end_gone(connection, now)
    changed = _judge(connection, now, elapsed_seconds, settings)
    left = list_abandoned(connection)
    # Nobody would be told of anything while an escalation waits for a person.
    to_rescue = [each for each in left if settings.rescue == "automatic" or each.kind == "loops"]
    swept = _rescue_all(connection, to_rescue, now, settings, gone)
    rescued = [job for one in swept for job in one.jobs]
    audit_transitions.append_pending(connection, secrets, now, after_commit=after_commit)
    if rescued:
        audit_transitions.append_or_keep(
            connection, secrets, make_decision(swept, now), after_commit=after_commit
        )
    return Watched(
        late=_names(changed, "late"),
        missing=[*gone.values(), *_names(changed, "missing")],
        well=_names(changed, "alive"),
        rescued=rescued,
        abandoned=sum(each.jobs + each.reserved for each in left) - len(rescued),
        has_more=len(rescued) >= _MOST_RESCUED,
    )


def _end_gone(connection: Connection, now: datetime) -> dict[int, str]:
    """Mark workers of this machine as missing whose process is gone; return their names by id."""
    here = identify(os.getpid())
    parameters = {"boot_id": here.boot_id, "pid_namespace": here.pid_namespace}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(sql.load("list_workers_here"), parameters).fetchall()
        gone = [
            row
            for row in rows
            if ProcessIdentity(
                row["pid"], row["boot_id"], row["pid_namespace"], row["pid_started_at"]
            ).is_gone()
        ]
        if not gone:
            return {}
        ended = {
            "ids": [row["id"] for row in gone],
            "heartbeat_nos": [row["heartbeat_no"] for row in gone],
            "now": now,
        }
        found = cursor.execute(sql.load("end_gone_workers"), ended).fetchall()
        return {row["id"]: row["name"] for row in found}


def _judge(
    connection: Connection, now: datetime, elapsed_seconds: float, settings: Settings
) -> list[dict[str, Any]]:
    """Write the states of the workers; return the rows of those whose state changed."""
    elapsed = min(max(elapsed_seconds, 0.0), 2 * settings.heartbeat_seconds)
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            sql.load("watch_workers"),
            {
                "now": now,
                "elapsed": elapsed,
                "late_seconds": settings.late_seconds,
                "missing_seconds": settings.missing_seconds,
            },
        ).fetchall()


def list_abandoned(connection: Connection) -> list[AbandonedJobs]:
    """Return the workers that left `started` or reserved jobs behind. Few rows; locks nothing."""
    with connection.cursor(row_factory=class_row(AbandonedJobs)) as cursor:
        return cursor.execute(sql.load("list_abandoned_jobs")).fetchall()


def _rescue_all(
    connection: Connection,
    left: list[AbandonedJobs],
    now: datetime,
    settings: Settings,
    gone: Collection[int],
) -> list[Swept]:
    """Rescue abandoned jobs; return them by worker. A worker without rescued jobs is left out.

    `gone` are workers whose processes are gone: they cannot begin what they have reserved.
    """
    swept: list[Swept] = []
    room = _MOST_RESCUED
    for abandoned in left:
        if room <= 0:
            break
        cause = _GONE if abandoned.worker_id in gone else abandoned.cause
        rescued = endings.rescue(
            connection,
            [abandoned.worker_id],
            now,
            cause,
            claimed_before=abandoned.lost_claims_before(
                abandoned.last_claim_at, now, settings.missing_seconds
            ),
            limit=room,
        )
        if abandoned.reserved and len(rescued) < room:
            before = abandoned.lost_reservations_before(now, settings.missing_seconds)
            rescued += endings.rescue_reserved(
                connection,
                [abandoned.worker_id],
                now,
                now if abandoned.worker_id in gone else before,
                limit=room - len(rescued),
            )
        room -= len(rescued)
        if rescued:
            swept.append(Swept(abandoned.worker_id, abandoned.name, cause, rescued))
    return swept


def _names(changed: list[dict[str, Any]], state: str) -> list[str]:
    return [row["name"] for row in changed if row["state"] == state]


@dataclass(frozen=True)
class Swept:
    """The rescued jobs of one worker. `cause` is recorded in their attempts."""

    worker_id: int
    name: str | None
    cause: str
    jobs: Sequence[MovedJob]


def make_decision(swept: Sequence[Swept], now: datetime) -> Decision:
    """Return the audit row of a pass that rescued at least one job."""
    ids = [job.id for one in swept for job in one.jobs]
    named = ids[:MOST_NAMED]
    return Decision(
        at=now,
        actor="system",
        via="system",
        action="job.rescue",
        subject=_subject(swept, ids),
        targets=tuple(f"job/{id}" for id in named),
        outcome="done",
        reason="; ".join(dict.fromkeys(one.cause for one in swept)),
        after={f"worker/{one.worker_id}": _after(one, set(named)) for one in swept},
    )


def _after(one: Swept, named: set[int]) -> dict[str, Any]:
    """Return the number of a worker's jobs, and those of their ids in `named` by their new state."""
    states = sorted({job.state for job in one.jobs})
    ids = {state: [job.id for job in one.jobs if job.state == state] for state in states}
    return {
        "name": one.name,
        "cause": one.cause,
        "jobs": len(one.jobs),
        **{state: [id for id in of_state if id in named] for state, of_state in ids.items()},
    }


def _subject(swept: Sequence[Swept], ids: Sequence[int]) -> str:
    if len(ids) == 1:
        return f"job/{ids[0]}"
    if len(swept) > 1:
        return f"{len(ids)} jobs of {len(swept)} workers"
    return f"{len(ids)} jobs of {swept[0].name or f'worker {swept[0].worker_id}'}"
