"""Writes operations: begins and freezes them, moves them, and writes the receipts of their rows.

Every function runs in the caller's transaction. Operations are locked before everything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import Cursor
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb
from sqlalchemy import Insert, Select
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect

from ..core import sql
from ..core.db import Connection
from ..jobs.search.filter import JobFilter
from ..settings import Settings
from .lifecycle import RESULTS
from .targets import count_errors_statement, freeze_statement, list_errors_statement

# The SQLAlchemy dialect of psycopg, to write a statement that our own connection runs.
_DIALECT = psycopg_dialect.dialect()  # type: ignore[no-untyped-call]
DRAFT_SPAN = timedelta(minutes=15)


@dataclass(frozen=True)
class OperationForDecision:
    """The columns of an operation that an operator's action needs. `handled` rows are done or skipped.

    `open_targets` is how many jobs the running and paused operations of the one who asks have. `undone_by`
    is the running or paused operation that undoes it.
    """

    id: int
    state: str
    action: str
    actor: str
    is_trusted: bool
    query: Mapping[str, Any] | None
    targets: int
    rate: int | None
    expires_at: datetime
    code: str | None
    handled: int
    done: int
    open_targets: int
    undone_by: int | None

    @property
    def target(self) -> str:
        """The operation as the target of an action: `operation/7`."""
        return f"operation/{self.id}"

    @property
    def label(self) -> str:
        """The operation for people: what it does to how many jobs."""
        return f"{self.action} of {self.targets:,} jobs"


@dataclass(frozen=True)
class OpenOperation:
    """An operation that runs or is paused, as its row was locked for a turn of the loop."""

    id: int
    state: str
    action: str
    actor: str
    via: str
    is_trusted: bool
    rate: int | None
    reason: str
    targets: int
    stage: int
    begun_after: int
    is_proof_waived: bool
    done: int
    skipped: int
    asked: int
    proven: int
    failed_same_error: int
    failed_other_error: int
    unproven: int
    drifted: int
    started_at: datetime
    handled_at: datetime | None
    paced_at: datetime | None
    code: str | None
    says: str | None

    @property
    def target(self) -> str:
        """The operation as the subject of audit rows: `operation/7`."""
        return f"operation/{self.id}"

    @property
    def handled(self) -> int:
        """How many rows are done or skipped: those with the numbers up to this."""
        return sum(getattr(self, result) for result in RESULTS if result != "pending")

    def plus(self, counts: Mapping[str, int]) -> OpenOperation:
        """The operation with these counts added."""
        return replace(self, **{name: getattr(self, name) + n for name, n in counts.items()})


@dataclass(frozen=True)
class FrozenJob:
    """A row whose turn comes: a job as it was when it was frozen."""

    number: int
    job_id: int
    queue: str
    origin: str
    state: str
    dispatch_no: int
    attempt: int

    @property
    def target(self) -> str:
        """The job as the target of an action: `job/42`."""
        return f"job/{self.job_id}"


@dataclass(frozen=True)
class RowReceipt:
    """What became of a row: `done`, `skipped` with a code and a sentence, or `asked` of RQ."""

    number: int
    result: str
    code: str | None = None
    says: str | None = None
    new_job_id: int | None = None


@dataclass(frozen=True)
class QueueRoom:
    """How many jobs of an operation may wait in a queue, and how many do."""

    queue: str
    is_paused: bool
    listeners: int
    prefetch: int
    waiting: int


@dataclass(frozen=True)
class StageProof:
    """How far a stage is proven. `recent` are the last attempts that were looked at, at most 200."""

    waiting: int
    same_in_stage: int
    recent: int
    same_in_recent: int


# --- begin


def begin(connection: Connection, state: str, **columns: Any) -> int:
    """Insert an operation without rows, as `draft` or `running`; return its id."""
    query = columns["query"]
    values = {
        **columns,
        "state": state,
        "query": None if query is None else Jsonb(query),
        "expires_at": columns["now"] + DRAFT_SPAN,
    }
    row = connection.execute(sql.load("insert_operation"), values).fetchone()
    assert row is not None
    return int(row[0])


def freeze(
    connection: Connection,
    operation: int,
    wanted: JobFilter,
    now: datetime,
    most: int,
    jobs_of_texts: Mapping[str, Sequence[int]],
) -> int:
    """Write a row for each job that fits, and return how many: one more than `most` if there are.

    `jobs_of_texts` are the jobs whose errors have each searched text.
    """
    return _run(connection, freeze_statement(operation, wanted, now, most, jobs_of_texts)).rowcount


def count_errors(connection: Connection, wanted: JobFilter, now: datetime) -> int:
    """How many jobs fit and have any error; more than `MOST_ERRORS` are not counted."""
    row = _run(connection, count_errors_statement(wanted, now)).fetchone()
    return int(row[0]) if row is not None else 0


def list_errors(
    connection: Connection, wanted: JobFilter, text: str, now: datetime
) -> Sequence[tuple[int, str]]:
    """Id and error of the jobs that fit, with this text in the error as it is stored."""
    return _run(connection, list_errors_statement(wanted, text, now)).fetchall()


def _run(connection: Connection, statement: Insert | Select[*tuple[Any, ...]]) -> Cursor[Any]:
    made = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    return connection.execute(str(made), made.construct_params(), prepare=False)


def freeze_undone(
    connection: Connection, operation: int, undo_of: int, states: Sequence[str]
) -> int:
    """Write a row for each job that the operation `undo_of` changed and that is in one of `states` now."""
    values = {"id": operation, "undo_of": undo_of, "states": list(states)}
    return connection.execute(sql.load("freeze_undone_rows"), values).rowcount


def set_targets(
    connection: Connection,
    operation: int,
    targets: int,
    frozen: Sequence[tuple[str, str, int]] | None = None,
) -> None:
    """Note how many jobs were frozen, in all and by origin and state."""
    values = {"id": operation, "targets": targets, "frozen": Jsonb(frozen) if frozen else None}
    connection.execute(sql.load("set_targets_of_operation"), values)


def count_frozen_states(connection: Connection, operation: int) -> list[tuple[str, str, int]]:
    """The frozen jobs by origin and state, the most first."""
    return connection.execute(sql.load("count_frozen_states"), {"id": operation}).fetchall()


def list_samples(connection: Connection, operation: int, places: Sequence[float]) -> Sequence[int]:
    """The jobs of a draft at these places, from 0 to 1, of as many equal parts of its rows, in id order."""
    values = {"id": operation, "places": list(places)}
    return [row[0] for row in connection.execute(sql.load("list_samples_of_draft"), values)]


# --- an operator's decision


def lock(connection: Connection, operations: Iterable[int], beginner: str | None) -> None:
    """Lock these operations in id order, and let nobody else begin one for the actor `beginner`."""
    values = {"ids": list(operations), "actor": beginner}
    connection.execute(sql.load("lock_operations"), values)


def look(
    connection: Connection, operations: Iterable[int], actor: str
) -> list[OperationForDecision]:
    """Those of these operations that exist, in id order. Locks nothing."""
    with connection.cursor(row_factory=class_row(OperationForDecision)) as cursor:
        values = {"ids": list(operations), "actor": actor}
        return cursor.execute(sql.load("look_at_operations"), values).fetchall()


def start(connection: Connection, operations: Collection[int], **columns: Any) -> None:
    """Start drafts under the name of their new `actor`. A `rate` replaces theirs; 0 means none."""
    connection.execute(sql.load("start_operation"), {**columns, "ids": list(operations)})


def pause(
    connection: Connection, operations: Collection[int], code: str, says: str, now: datetime
) -> None:
    """Pause operations that run, or note another cause of a pause."""
    values = {"ids": list(operations), "code": code, "says": says, "now": now}
    connection.execute(sql.load("pause_operations"), values)


def resume(connection: Connection, operations: Collection[int]) -> None:
    """Let operations go on. After a stop the stages begin anew."""
    connection.execute(sql.load("resume_operations"), {"ids": list(operations)})


def end(
    connection: Connection,
    operations: Collection[int],
    state: str,
    now: datetime,
    code: str | None = None,
    says: str | None = None,
) -> None:
    """End operations as `finished`, `stopped` or `canceled`."""
    values = {"ids": list(operations), "state": state, "now": now, "code": code, "says": says}
    connection.execute(sql.load("end_operations"), values)


# --- a turn of the loop


def expire_drafts(connection: Connection, now: datetime) -> int:
    """End drafts that nobody started in time; return how many."""
    return connection.execute(sql.load("expire_drafts"), {"now": now}).rowcount


def list_open(connection: Connection, after: int, limit: int) -> list[int]:
    """The ids of the operations that run or are paused, behind the id `after`."""
    values = {"after": after, "limit": limit}
    rows = connection.execute(sql.load("list_open_operations"), values)
    return [id for (id,) in rows]


def lock_open(connection: Connection, operation: int) -> OpenOperation | None:
    """Lock an open operation for one turn; None when it is not open, or when somebody else has it."""
    with connection.cursor(row_factory=class_row(OpenOperation)) as cursor:
        return cursor.execute(sql.load("lock_open_operation"), {"id": operation}).fetchone()


def prove(connection: Connection, operation: OpenOperation, now: datetime) -> OpenOperation:
    """Note how next attempts ended; return the operation with its new counts."""
    values = {"id": operation.id, "now": now}
    found: dict[str, int] = dict(
        connection.execute(sql.load("prove_operation_rows"), values).fetchall()
    )
    if not found:
        return operation
    counts = {**found, "done": -sum(found.values())}
    return _count(connection, operation, counts)


def read_proof(connection: Connection, operation: OpenOperation, low: int, high: int) -> StageProof:
    """How far the stage with the rows above `low` up to `high` is proven."""
    values = {
        "id": operation.id,
        "low": low,
        "high": high,
        "begun_after": operation.begun_after,
    }
    with connection.cursor(row_factory=class_row(StageProof)) as cursor:
        found = cursor.execute(sql.load("read_proof_of_stage"), values).fetchone()
    assert found is not None
    return found


def find_next_place(connection: Connection, operation: int) -> tuple[str, str] | None:
    """The Redis and the queue of the plain job whose turn comes next; None when it is a managed one."""
    return connection.execute(sql.load("find_next_place"), {"id": operation}).fetchone()


def list_next(
    connection: Connection, operation: OpenOperation, high: int, limit: int
) -> list[FrozenJob]:
    """The next rows, up to the number `high`."""
    values = {"id": operation.id, "low": operation.handled, "high": high, "limit": limit}
    with connection.cursor(row_factory=class_row(FrozenJob)) as cursor:
        return cursor.execute(sql.load("list_next_rows"), values).fetchall()


def read_rooms(
    connection: Connection,
    operation: int,
    queues: Collection[str],
    settings: Settings,
    now: datetime,
) -> dict[str, QueueRoom]:
    """What these queues have room for, by their names."""
    values = {
        "id": operation,
        "queues": list(queues),
        "prefetch": settings.prefetch,
        "late_seconds": settings.late_seconds,
        "now": now,
    }
    with connection.cursor(row_factory=class_row(QueueRoom)) as cursor:
        cursor.execute(sql.load("read_room_of_queues"), values)
        return {room.queue: room for room in cursor}


def find_incident(connection: Connection, queue: str, makes_due: bool) -> tuple[int, str] | None:
    """The oldest incident that keeps an operation from going on there, as (id, class).

    A Redis that does not answer; when its jobs would become due, also a critical one of this queue.
    """
    values = {"queue": queue, "makes_due": makes_due}
    return connection.execute(sql.load("find_incident_at_queue"), values).fetchone()


def write_receipts(
    connection: Connection,
    operation: OpenOperation,
    receipts: Sequence[RowReceipt],
    drifted: int,
    now: datetime,
    paced_at: datetime | None,
) -> OpenOperation:
    """Write what became of rows; return the operation with its new counts."""
    values = {
        "id": operation.id,
        "now": now,
        **_columns(receipts),
        "new_job_ids": [each.new_job_id for each in receipts],
    }
    connection.execute(sql.load("write_receipts"), values)
    counts = {**Counter(each.result for each in receipts), "drifted": drifted}
    return _count(connection, operation, counts, now, paced_at)


def _count(
    connection: Connection,
    operation: OpenOperation,
    counts: Mapping[str, int],
    handled_at: datetime | None = None,
    paced_at: datetime | None = None,
) -> OpenOperation:
    names = [*(result for result in RESULTS if result != "pending"), "drifted"]
    values = {
        "id": operation.id,
        "handled_at": handled_at,
        "paced_at": paced_at,
        **{name: counts.get(name, 0) for name in names},
    }
    connection.execute(sql.load("count_results"), values)
    moved = operation.plus(counts)
    return moved if handled_at is None else replace(moved, handled_at=handled_at)


def note_answers(connection: Connection, operation: int, answers: Sequence[RowReceipt]) -> None:
    """Note what RQ answered about rows that were asked of it. Commits unless the caller has a transaction."""
    connection.execute(sql.load("note_answers_of_rq"), {"id": operation, **_columns(answers)})


def _columns(receipts: Sequence[RowReceipt]) -> dict[str, Any]:
    numbers = [each.number for each in receipts]
    return {
        "low": min(numbers),
        "high": max(numbers),
        "numbers": numbers,
        "results": [each.result for each in receipts],
        "codes": [each.code for each in receipts],
        "sentences": [each.says for each in receipts],
    }


def hash_receipts(connection: Connection, operation: int, low: int, high: int) -> dict[str, Any]:
    """The SHA-256 over the receipts above `low` up to `high`, as `hash`, and how many there are by result."""
    values = {"id": operation, "low": low, "high": high}
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(sql.load("hash_receipts"), values).fetchone()
    assert found is not None
    return found


def next_stage(connection: Connection, operation: OpenOperation) -> OpenOperation:
    """Move an operation to its next stage."""
    connection.execute(sql.load("next_stage"), {"id": operation.id})
    return replace(operation, stage=operation.stage + 1, is_proof_waived=False)
