"""Tells of a worker, by its name: when it began, what it was told, its heartbeats, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...actions.domain import name_in
from ...core.history import Event
from ...core.round_trips import start_reading
from ...core.words import agree, counted, moment
from ...workers import actions as worker_actions
from ...workers.queries import WorkerRow, find_worker_named, list_jobs_of
from ..bundle import (
    Column,
    EvidenceTable,
    Expected,
    Inquiry,
    Kind,
    LeftOut,
    Related,
    TableRow,
    Told,
    WatchedSpan,
)

_MOST_JOBS = 20


def _read_key(key: str) -> str | None:
    target = worker_actions.read_target(f"worker/{key}")
    return None if target is None else name_in(target)


def _tell(inquiry: Inquiry) -> Told | None:
    listing = start_reading(inquiry.session, list_jobs_of, inquiry.key, _MOST_JOBS + 1)
    worker = find_worker_named(inquiry.session, inquiry.key)
    if worker is None:
        return None
    jobs = listing.value
    return Told(
        title=f"Worker {worker.name}",
        state=worker.state,
        diagnosis=_diagnose(inquiry, worker, jobs),
        since=worker.started_at,
        until=worker.ended_at or inquiry.now,
        events=list(_list_events(worker)),
        pieces=list(_list_pieces(worker)),
        watches=list(_list_watches(inquiry, worker)),
        evidence=[_make_facts(worker), *_make_children(worker)],
        related=list(_list_related(worker, jobs)),
        left_out=[LeftOut("jobs that it has")] if len(jobs) > _MOST_JOBS else [],
    )


def _diagnose(inquiry: Inquiry, worker: WorkerRow, jobs: Sequence[int]) -> str:
    silent = (inquiry.now - worker.heartbeat_at).total_seconds()
    has = f"it has {counted(min(len(jobs), _MOST_JOBS), 'job')}" + "+" * (len(jobs) > _MOST_JOBS)
    if worker.state == "missing":
        return (
            f"It was given up: its last heartbeat was at {moment(worker.heartbeat_at)}, and {has}."
        )
    if worker.ended_at is not None:
        return f"It stopped at {moment(worker.ended_at)}, and {has}."
    if silent > inquiry.host.settings.late_seconds:
        return f"It has sent no heartbeat since {moment(worker.heartbeat_at)}, and {has}."
    if worker.drain_requested_by is not None:
        return f"{worker.drain_requested_by} asked it to leave, and {has}."
    return f"It is alive, and {has}."


def _list_events(worker: WorkerRow) -> Iterator[Event]:
    """What it told of itself, the newest first."""
    if worker.state == "missing" and worker.ended_at is not None:
        yield Event(worker.ended_at, "missing", "Counted as missing", "loop watch")
    elif worker.ended_at is not None:
        yield Event(worker.ended_at, "stopped", "Stopped", "worker")
    yield Event(worker.heartbeat_at, "seen", "Last heartbeat", "worker")
    for left in worker.left:
        yield Event(left.at, "seen" if left.is_usual else "failed", left.says, "worker")
    if worker.drain_requested_at is not None:
        text = f"{worker.drain_requested_by} asked it to leave"
        yield Event(worker.drain_requested_at, "draining", text, "operator")
    queues = ", ".join(worker.queues)
    yield Event(worker.started_at, "alive", f"Began on {worker.host}, for {queues}", "worker")


def _list_pieces(worker: WorkerRow) -> Iterator[Expected]:
    if worker.state == "missing":
        yield Expected(
            "How it ended: after its last heartbeat nobody heard of it",
            is_found=False,
            since=worker.heartbeat_at,
            until=worker.ended_at,
        )


def _list_watches(inquiry: Inquiry, worker: WorkerRow) -> Iterator[WatchedSpan]:
    """Its heartbeats tell that it lives. That they ended, only a loop sees."""
    if worker.state == "stopped":
        return
    until = worker.ended_at or inquiry.now
    since = min(worker.heartbeat_at, until)
    says = "Whether it lived is not known."
    if worker.kind == "pool":
        yield WatchedSpan("watch", says, since, until)
    else:
        yield WatchedSpan("observe", says, since, until, needs=("redis_away",))


def _make_facts(worker: WorkerRow) -> EvidenceTable:
    facts = {
        "kind": worker.kind,
        "machine": worker.host,
        "process": str(worker.pid) if worker.pid else None,
        "queues": ", ".join(worker.queues),
        "children": str(worker.processes),
        "version of flask_opsjobs": worker.version,
        "version of the application": worker.deploy_version,
        "memory in kB": None if worker.rss_kb is None else f"{worker.rss_kb:,}",
    }
    rows = [TableRow((name, value)) for name, value in facts.items() if value]
    return EvidenceTable("What it told of itself", (Column("what"), Column("value")), rows)


def _make_children(worker: WorkerRow) -> Iterator[EvidenceTable]:
    """Its children, as its last heartbeat told of them."""
    children = worker.pool.children
    if not children:
        return
    columns = (
        Column("process", "number"),
        Column("jobs performed", "number"),
        Column("job"),
        Column("task"),
        Column("runs for", "seconds"),
        Column("memory", "bytes"),
    )
    rows = [
        TableRow(
            (
                child.pid,
                child.jobs,
                None if child.job_id is None else str(child.job_id),
                child.task,
                child.seconds,
                None if child.rss_kb is None else child.rss_kb * 1024,
            ),
            None if child.job_id is None else f"job/{child.job_id}",
        )
        for child in children
    ]
    number = counted(len(children), "child", "children")
    verb = agree(len(children), "was", "were")
    yield EvidenceTable(f"{number} {verb} there at its last heartbeat", columns, rows)


def _list_related(worker: WorkerRow, jobs: Sequence[int]) -> Iterator[Related]:
    for job in jobs[:_MOST_JOBS]:
        yield Related("Has", f"job {job}", f"job/{job}")
    for queue in worker.queues:
        yield Related("Queue", queue, f"queue/{queue}")
    if worker.deploy_id is not None:
        name = worker.deploy_version or str(worker.deploy_id)
        yield Related("Deploy", name, f"deploy/{worker.deploy_id}")


KIND = Kind("worker", "workers.view", _read_key, _tell)
