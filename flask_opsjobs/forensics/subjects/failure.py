"""Tells of a failure: its attempts, in which deploys and on which days it failed, and its jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...core.history import INFERRED, Event
from ...core.round_trips import StartedRead, start_reading
from ...core.words import counted
from ...failures import queries
from ...failures.models import Failure
from ...failures.queries import AttemptThatFailed, DeployRow, FailedJob, FailureRow
from ...failures.sentences import say_failure
from ...lifeline.retention import NUMBER_DAYS
from ..backlog import watch_backlog
from ..bundle import (
    Column,
    EvidenceTable,
    Expected,
    Inquiry,
    Kind,
    LeftOut,
    Path,
    Related,
    TableRow,
    Told,
    WatchedSpan,
)
from ..lines import list_operations
from .by_id import read_id, was_numbered

MOST_ATTEMPTS = 100
_MOST_JOBS = 25
# The oldest attempt is looked for among so many of the oldest jobs.
_EXAMINED = 200


def _tell(inquiry: Inquiry) -> Told | None:
    session = inquiry.session
    failure = queries.find_failure(session, int(inquiry.key))
    if failure is None:
        return None
    kept_since = inquiry.kept_since(NUMBER_DAYS)
    deploying = start_reading(session, queries.list_deploys, failure, kept_since)
    naming = start_reading(session, queries.find_versions, failure.deploys)
    pieces = inquiry.start(_list_expected, inquiry, failure)
    watches = inquiry.start(_watch_counting, inquiry, failure)
    evidence = inquiry.start(_make_tables, inquiry, failure, deploying)
    relating = inquiry.start(_relate_others, inquiry, failure)
    attempts = queries.list_failed_attempts(session, failure, MOST_ATTEMPTS)
    versions = naming.value
    fact, rest = say_failure(failure, versions)
    return Told(
        title=f"Failure {failure.id}: {failure.title}",
        state="regressed" if failure.is_regressed else failure.state,
        diagnosis=f"{fact} {rest}",
        since=failure.first_at,
        until=inquiry.now,
        events=[*_of_attempts(attempts), *_of_failure(failure, attempts, versions)],
        pieces=pieces,
        watches=watches,
        evidence=evidence,
        related=[*_relate(failure, attempts, versions), *relating.value],
        paths=[*_list_paths(failure)],
        left_out=[*_leave_out(failure, attempts)],
    )


# --- what happened


def _of_attempts(attempts: Sequence[AttemptThatFailed]) -> Iterator[Event]:
    for attempt in attempts:
        on = f" on {attempt.worker}" if attempt.worker else ""
        yield Event(
            attempt.ended_at,
            "failed",
            f"Attempt {attempt.number} of job {attempt.job_id} failed{on}",
            INFERRED if attempt.outcome == "lost" else "worker",
            label=attempt.cause_of_death,
            subject=f"job/{attempt.job_id}",
        )


def _of_failure(
    failure: FailureRow, attempts: Sequence[AttemptThatFailed], versions: Mapping[int, str]
) -> Iterator[Event]:
    """What was counted of it. Its first attempt is not told twice."""
    source = "loop roll_up"
    if all(attempt.ended_at != failure.first_at for attempt in attempts):
        where = _in_deploy(failure.first_deploy, versions)
        yield Event(failure.first_at, "failed", f"The first attempt failed so{where}", source)
    if failure.regressed_at is not None:
        where = _in_deploy(failure.regressed_in, versions)
        text = f"It failed again{where}, although it was resolved"
        yield Event(failure.regressed_at, "failed", text, source)


def _in_deploy(deploy: int | None, versions: Mapping[int, str]) -> str:
    version = versions.get(deploy or 0)
    return f" in deploy {version}" if version else ""


def _leave_out(failure: FailureRow, attempts: Sequence[AttemptThatFailed]) -> Iterator[LeftOut]:
    if len(attempts) == MOST_ATTEMPTS and failure.number > MOST_ATTEMPTS:
        yield LeftOut("attempts of older jobs", number=failure.number - MOST_ATTEMPTS)


# --- what should be there


def _list_expected(inquiry: Inquiry, failure: FailureRow) -> Iterator[Expected]:
    oldest = queries.list_failed_attempts(inquiry.session, failure, _EXAMINED, is_oldest_first=True)
    yield Expected(
        "its first attempts: their jobs were removed",
        # The clock of a worker may be set back, so a later count may name an earlier time.
        is_found=any(attempt.ended_at <= failure.first_at for attempt in oldest),
        is_removed=True,
        since=failure.first_at,
        until=min((attempt.ended_at for attempt in oldest), default=None),
    )
    if failure.first_at < inquiry.kept_since(NUMBER_DAYS):
        yield Expected(
            f"how often it failed on each day: that is kept for {NUMBER_DAYS} days",
            is_found=False,
            is_removed=True,
            since=failure.first_at,
            until=inquiry.kept_since(NUMBER_DAYS),
        )


def _watch_counting(inquiry: Inquiry, failure: FailureRow) -> Iterator[WatchedSpan]:
    lacks = "Attempts that failed since are not counted, so a regression would not be seen."
    yield watch_backlog(inquiry, "roll_up", lacks, failure.first_at)


# --- evidence


def _make_tables(
    inquiry: Inquiry, failure: FailureRow, deploys: StartedRead[Sequence[DeployRow]]
) -> Iterator[EvidenceTable]:
    counting = start_reading(
        inquiry.session, queries.count_days, failure, inquiry.kept_since(NUMBER_DAYS)
    )
    listing = start_reading(inquiry.session, queries.list_failed_jobs, failure)
    yield EvidenceTable(
        "By deploy",
        [
            Column("deploy"),
            Column("marked", "moment"),
            Column("attempts that failed so", "number"),
            Column("jobs of the task that finished", "number"),
        ],
        [
            TableRow([row.version, row.at, row.failed, row.finished], f"deploy/{row.id}")
            for row in deploys.value
        ],
    )
    days = counting.value
    yield EvidenceTable(
        "By day, in UTC",
        [Column("day", "moment"), Column("attempts that failed so", "number")],
        [TableRow([day, number]) for day, number in sorted(days.items(), reverse=True)],
    )
    if inquiry.may("jobs.view"):
        yield _make_table_of_jobs(listing.value)


def _make_table_of_jobs(jobs: Sequence[FailedJob]) -> EvidenceTable:
    rows = [
        TableRow(
            [job.id, job.state, f"{job.number} of {job.max_attempts}", job.failed_at],
            f"job/{job.id}",
        )
        for job in jobs
    ]
    cut = len(rows) - _MOST_JOBS
    older = LeftOut("older jobs", number=None if len(rows) == queries.MOST_JOBS else cut)
    return EvidenceTable(
        "The newest jobs that failed so",
        [Column("job", "number"), Column("state"), Column("attempt"), Column("failed", "moment")],
        rows[:_MOST_JOBS],
        older if cut > 0 else None,
    )


# --- what is related, and what may be done


def _relate(
    failure: FailureRow, attempts: Sequence[AttemptThatFailed], versions: Mapping[int, str]
) -> Iterator[Related]:
    yield Related("Task", failure.task, f"task/{failure.task}")
    named = (
        ("First in", failure.first_deploy),
        ("Last in", failure.last_deploy),
        ("Resolved in", failure.resolved_in),
        ("Regressed in", failure.regressed_in),
    )
    for how, deploy in named:
        if (version := versions.get(deploy or 0)) is not None:
            yield Related(how, f"deploy {version}", f"deploy/{deploy}")
    if attempts:
        newest = attempts[0].job_id
        yield Related("Newest job", str(newest), f"job/{newest}")


def _relate_others(inquiry: Inquiry, failure: FailureRow) -> Iterator[Related]:
    listing = start_reading(inquiry, list_operations)
    for other in queries.list_other_failures(inquiry.session, failure):
        says = f"{other.state}, {counted(other.number, 'attempt')}: {other.title}"
        yield Related("Other failure of the task", str(other.id), f"failure/{other.id}", says)
    for operation in listing.value:
        if (operation.query or {}).get("failure") == str(failure.id):
            says = f"{operation.action}, {operation.state}"
            yield Related("Operation", str(operation.id), f"operation/{operation.id}", says)


def _list_paths(failure: FailureRow) -> Iterator[Path]:
    if failure.state == "open":
        yield Path(
            "follow_up",
            f"Fix {failure.raised_in or failure.task}, and deploy it",
            "Resolve the failure in that deploy, then retry its jobs in stages.",
            status="unconfigured",
        )


def _was_there(inquiry: Inquiry) -> bool:
    return was_numbered(inquiry, Failure.id)


KIND = Kind("failure", "lifeline.view", read_id, _tell, _was_there)
