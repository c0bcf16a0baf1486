"""Searches where no index has the order of the list: what is read, how much of it, and the statement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    cast,
    literal,
    literal_column,
    null,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ..models import Job
from .filter import JobFilter
from .index_scan import LAST_ID, PLAIN, Range, fits

# So many hits are looked at: enough for any list, and sorted in no time.
MOST_HITS = 5_000
# When there are more, any of them are found; beside them all hits among so many of the newest jobs are shown.
NEWEST_JOBS = 20_000
# A text in an error is looked for in so many of the newest jobs that have one.
NEWEST_ERRORS = 20_000


@dataclass(frozen=True)
class Searched:
    """What a search looked at: all there is, unless one of these says where it stopped."""

    stopped_at_hits: bool = False
    stopped_at_errors: bool = False

    @property
    def is_all(self) -> bool:
        """Whether nothing was left out."""
        return not (self.stopped_at_hits or self.stopped_at_errors)


def is_by_errors(wanted: JobFilter) -> bool:
    """Whether only the newest errors are looked at, since nothing else narrows the search."""
    return bool(wanted.error and not wanted.args and not wanted.tag and wanted.id is None)


def error_beyond(found: Range) -> Select[int]:
    """The id of the newest job with an error that is not looked at any more; no row when all are."""
    with_error = select(Job.id).where(Job.error.is_not(None), *within(found))
    return with_error.order_by(Job.id.desc()).offset(NEWEST_ERRORS).limit(1)


def job_beyond(found: Range) -> Select[int]:
    """The id of the newest job that is not among the newest; no row when all are."""
    return select(Job.id).where(*within(found)).order_by(Job.id.desc()).offset(NEWEST_JOBS).limit(1)


def newest_hits(wanted: JobFilter, found: Range) -> Select[int, str, str | None]:
    """As `hits`, by walking the ids of a range that is not large, the newest first."""
    some = _hits(wanted, within(found)).order_by(Job.id.desc())
    return some.limit(MOST_HITS)


def hits(wanted: JobFilter, found: Range) -> Select[int, str, str | None]:
    """Id, state and (if searched) error of the jobs that may fit, one more than are looked at, the newest first.

    Through a materialized CTE that stops by itself, so that no planner walks the primary key for the order: it finds
    any hits, in whatever order, and they are sorted after.
    """
    some = _hits(wanted, within(found, Job.id + 0)).limit(MOST_HITS + 1)
    found_some = some.cte("hits").prefix_with("MATERIALIZED", dialect="postgresql")
    return select(found_some).order_by(found_some.c.id.desc())


def _hits(wanted: JobFilter, bounds: list[ColumnElement[bool]]) -> Select[int, str, str | None]:
    conditions = [*fits(wanted), *bounds, *_indexed(wanted)]
    error: ColumnElement[Any] = null()
    if wanted.error:
        # Which of these errors fit is for the caller to say, so that a common argument is no reason to read on.
        error = Job.error.expression
        conditions.append(error.is_not(None))
    return select(Job.id, Job.state, error.label("error")).where(*conditions)


def newest_errors(wanted: JobFilter, found: Range) -> Select[int, str, str | None]:
    """As `hits`, when only the newest errors are looked at: those of them that hold the text as it is stored."""
    assert wanted.error is not None
    columns = [Job.id, Job.error, *(getattr(Job, name) for name in PLAIN)]
    newest = select(*columns).where(Job.error.is_not(None), *within(found))
    newest = newest.order_by(Job.id.desc()).limit(NEWEST_ERRORS)
    seen = newest.cte("newest").prefix_with("MATERIALIZED", dialect="postgresql").c
    statement = select(seen.id, seen.state, seen.error)
    conditions = [*fits(wanted, seen), _contains(seen.error, wanted.error)]
    return statement.where(*conditions).order_by(seen.id.desc())


def _indexed(wanted: JobFilter) -> list[ColumnElement[bool]]:
    """The conditions that an index answers: of the arguments, of the tags, of the id."""
    found: list[ColumnElement[bool]] = []
    for argument in wanted.args:
        shapes = (cast(literal(shape, Text), JSONB) for shape in argument.shapes)
        found.append(or_(*(Job.args.contains(shape) for shape in shapes)))
    if wanted.tag is not None:
        tagged = Job.tags.bool_op("@>")(cast([wanted.tag], ARRAY(Text)))
        # The index leaves out jobs without tags, and wants to be told.
        found += [tagged, Job.tags != literal_column("'{}'::text[]")]
    if wanted.id is not None:
        found.append(Job.id == wanted.id)
    return found


def within(found: Range, key: Any = Job.id) -> list[ColumnElement[bool]]:
    """That a job lies within the range; with an expression for a `key`, no index is offered for it."""
    bounds = [key >= found.low] if found.low > 0 else []
    bounds += [key < found.high] if found.high < LAST_ID else []
    return [*bounds, *found.conditions]


def _contains(column: Any, text: str) -> ColumnElement[bool]:
    escaped = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return column.ilike(f"%{escaped}%", escape="\\")  # type: ignore[no-any-return]
