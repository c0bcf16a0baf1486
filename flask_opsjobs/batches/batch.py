"""Opens batches in the host's transaction, adds members to them, and closes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from types import TracebackType
from typing import Any

from sqlalchemy.orm import Session

from ..core.after_commit import after_commit
from ..core.words import show_value
from ..errors import BatchClosed, InvalidBatch, OpsJobsError, UnknownBatch, WrongSession
from ..host import ClosedBatch, Host
from ..jobs.record import enqueue, enqueue_many, json_storage
from ..jobs.record.enqueue import (
    AnySession,
    Enqueued,
    EnqueuedMany,
    find_session,
    join,
    run_sql,
    without_values,
)
from ..jobs.record.options import Options
from ..jobs.record.stored_call import StoredCall, store_callback
from ..jobs.record.task import Call, Task
from ..jobs.record.unique_locks import RunSql

LONGEST_NAME = 200
# What a batch tells the tasks of its `on_end` and `on_failure`.
FACTS = ("batch_id", "name", "state", "end_no", "counts", "meta")
_NOT_COMMITTED = (
    ": the transaction that opened it was rolled back, or is not committed yet; open it again with "
    "`with batch:` or batch.open()"
)


@dataclass(frozen=True)
class BatchDeclaration:
    """A batch to open, as the host gave it."""

    name: str
    on_end: Task | Call | None = None
    on_failure: Task | Call | None = None
    meta: Mapping[str, Any] | None = None


class Batch:
    """Many jobs with one outcome. `OpsJobs.batch` makes it.

    A `with` block opens the batch, or takes an open one again, and closes it at its end. When the block
    raises, the batch is not closed: it is rolled back with your transaction, or it stays open with the
    members that were committed.

    >>> with opsjobs.batch("invoices") as batch:
    ...     added = batch.enqueue_many(send_invoice, ({"invoice_id": number} for number in range(3)))
    >>> db.session.commit()
    >>> added.count
    3
    """

    def __init__(
        self,
        host: Callable[[], Host],
        declared: BatchDeclaration | None,
        *,
        id: int | None = None,
        session: AnySession | None = None,
    ) -> None:
        self._host = host
        self._declared = declared
        self._id = id
        self._session = session

    def __repr__(self) -> str:
        return f"<Batch {self._id or 'not opened'}>"

    @property
    def id(self) -> int:
        """The id of the batch. Raises `OpsJobsError` before it is opened.

        >>> with opsjobs.batch("invoices") as batch:
        ...     opsjobs.batch(id=batch.id).enqueue(send_invoice, 9001).conflict
        False
        """
        if self._id is None:
            raise OpsJobsError(
                "the batch is not open: write `with opsjobs.batch(…) as batch:`, or call batch.open()"
            )
        return self._id

    def __enter__(self) -> Batch:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()

    def open(self) -> Batch:
        """Open the batch in the transaction of the host's session; the host commits. Returns the batch.

        A batch that was opened before is taken again, or opened anew when its first transaction was rolled
        back. A batch that was given by its id must be open already. Raises `InvalidBatch` with every fault,
        `UnknownBatch` and `BatchClosed`; then nothing was written.

        >>> batch = opsjobs.batch("invoices").open()
        >>> job = batch.enqueue(send_invoice, 9001)
        >>> batch.close()
        >>> db.session.commit()
        """
        host = self._host()
        _, run = self._join(host)
        is_there = self._id is not None and run("find_batch_state", {"id": self._id})
        if self._declared is not None and not is_there:
            (row,) = run("insert_batch", _columns_of(host, self._declared))
            self._id = row.id
        else:
            self._lock(run)
        return self

    def enqueue(self, task: Task | Call, /, *args: Any, **kwargs: Any) -> Enqueued:
        """Enqueue a member in the transaction of the host's session, as `Task.enqueue` does.

        A call with `conflict` is no member. Raises `BatchClosed` too.

        >>> with opsjobs.batch("invoices") as batch:
        ...     job = batch.enqueue(send_invoice.options(priority=1), invoice_id=9001)
        >>> job.state
        'available'
        """
        host, (task, options) = self._host(), self._options_of(task)
        _, run = self._join(host)
        self._lock(run)
        enqueued = enqueue.enqueue(host, task, options, args, kwargs)
        if not enqueued.conflict:
            run("count_members", {"id": self.id, "number": 1})
        return enqueued

    def enqueue_many(
        self,
        task: Task | Call,
        rows: Iterable[Mapping[str, Any]],
        *,
        commit_every: int | None = None,
    ) -> EnqueuedMany:
        """Enqueue a member per dict of arguments, in constant memory, as `Task.enqueue_many` does.

        With `commit_every`, commits the session after so many rows, with all that it holds. Then members run
        while others are added, and `rows` may not read from the same session. After an error, or a crash, the
        batch is open with the members that were committed: take it again with `opsjobs.batch(id=…)`.
        Raises `BatchClosed` too.

        >>> with opsjobs.batch("invoices") as batch:
        ...     rows = ({"invoice_id": number} for number in range(2500))
        ...     added = batch.enqueue_many(send_invoice, rows, commit_every=1000)
        >>> added
        EnqueuedMany(count=2500, conflicts=0)
        """
        host, (task, options) = self._host(), self._options_of(task)
        enqueue_many.require_rows(task, rows)
        if commit_every is None:
            return self._add_many(host, task, options, rows)
        if not isinstance(commit_every, int) or isinstance(commit_every, bool) or commit_every < 1:
            raise ValueError(
                f"commit_every is a number of rows from 1 on, got {show_value(commit_every)}"
            )
        count = conflicts = done = 0
        for part in _parts(rows, commit_every):
            added = self._add_many(host, task, options, part, done)
            find_session(host, self._session)[0].commit()
            count, conflicts = count + added.count, conflicts + added.conflicts
            done += commit_every
        return EnqueuedMany(count, conflicts)

    def close(self) -> None:
        """Close the batch in the transaction of the host's session: no member can be added any more.

        It ends when all its members have ended, at once when it has none. Other transactions that are adding
        members right now may go on: the batch ends after them. Does nothing when the batch is closed already.
        Raises `UnknownBatch`.

        >>> batch = opsjobs.batch("invoices").open()
        >>> batch.close()
        >>> batch.enqueue(send_invoice, 9001)
        Traceback (most recent call last):
        flask_opsjobs.errors.BatchClosed: batch ... takes no members any more: it is running
        """
        host = self._host()
        session, run = self._join(host)
        self._find_state(run)
        run("close_batches", {"ids": [self.id]})
        if host.dispatcher is not None:
            after_commit(session, host.dispatcher.push, ClosedBatch(self.id))

    def _add_many(
        self,
        host: Host,
        task: Task,
        options: Options,
        rows: Iterable[Mapping[str, Any]],
        first_number: int = 0,
    ) -> EnqueuedMany:
        _, run = self._join(host)
        self._lock(run)
        added = enqueue_many.enqueue_many(host, task, options, rows, first_number)
        if added.count:
            run("count_members", {"id": self.id, "number": added.count})
        return added

    def _join(self, host: Host) -> tuple[Session, RunSql]:
        """The session, and a function that runs statements in its transaction."""
        session, bind = find_session(host, self._session)
        with without_values():
            join(host, session, bind)

        def run(statement: str, values: Mapping[str, Any]) -> Any:
            # Each time anew: `enqueue_many` may have begun and ended a savepoint.
            with without_values():
                return partial(run_sql, join(host, session, bind))(statement, values)

        return session, run

    def _lock(self, run: RunSql) -> None:
        """Let the batch not end before the commit. Raises `BatchClosed` and `UnknownBatch`."""
        if not run("lock_batch_to_add", {"id": self.id}):
            state = self._find_state(run)
            raise BatchClosed(f"batch {self.id} takes no members any more: it is {state}")

    def _find_state(self, run: RunSql) -> str:
        """The state of the batch. Raises `UnknownBatch`."""
        found = run("find_batch_state", {"id": self.id})
        if not found:
            opened = "" if self._declared is None else _NOT_COMMITTED
            raise UnknownBatch(f"there is no batch {self.id}{opened}")
        state: str = found[0].state
        return state

    def _options_of(self, task: Task | Call) -> tuple[Task, Options]:
        if isinstance(task, Call):
            options, task = task.chosen, task.task
        elif isinstance(task, Task):
            options = task.declared
        else:
            raise TypeError(f"a batch takes a task, or a task with options, got {show_value(task)}")
        if options.session is not None and options.session is not self._session:
            raise WrongSession(
                "a member is enqueued in the session of its batch: give session= to opsjobs.batch, "
                "not to the task"
            )
        return task, replace(options, session=self._session, batch_id=self.id)


def _parts(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[Iterable[Mapping[str, Any]]]:
    """The rows in parts of this size. Each part must be used up before the next."""
    rows = iter(rows)
    for first in rows:
        yield chain([first], islice(rows, size - 1))


def _columns_of(host: Host, declared: BatchDeclaration) -> dict[str, Any]:
    """The columns of a new batch. Raises `InvalidBatch` with every fault."""
    faults = []
    if fault := _fault_of_name(declared.name):
        faults.append(f"its name {fault}")
    meta = b"{}"
    try:
        if declared.meta is not None:
            if not isinstance(declared.meta, Mapping):
                raise json_storage.NotStorable("not_json", "must be a dict")
            meta = json_storage.dump(dict(declared.meta))
            json_storage.check_readable(meta)
            json_storage.check_keys(dict(declared.meta))
    except json_storage.NotStorable as why:
        faults.append(f"its meta {why}")
    if len(meta) > host.settings.max_args_bytes:
        limit = host.settings.max_args_bytes
        faults.append(f"its meta is larger than OPSJOBS_MAX_ARGS_BYTES = {limit}")
    calls: dict[str, StoredCall | None] = {}
    for what, given in (("on_end", declared.on_end), ("on_failure", declared.on_failure)):
        call = None if given is None else store_callback(host, given, FACTS)
        if isinstance(call, str):
            faults.append(f"its {what} {call}")
        else:
            calls[what] = call
    if faults:
        raise InvalidBatch("the batch cannot be opened: " + "; ".join(faults))
    trace = host.telemetry.current() if any(calls.values()) else {}
    stored = {
        what: None if call is None else json.dumps({**call, **trace})
        for what, call in calls.items()
    }
    return {"name": declared.name, "meta": meta.decode(), **stored}


def _fault_of_name(name: object) -> str | None:
    if not isinstance(name, str):
        return f"must be a text, got {type(name).__name__}"
    if not 1 <= len(name) <= LONGEST_NAME:
        return f"must have 1 to {LONGEST_NAME} characters, it has {len(name):,}"
    return json_storage.complain(name)
