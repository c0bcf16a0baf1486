"""Builds bounded statements for searches that no index answers in the order of the list."""

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

# The number of hits that are examined: enough for any list, and fast to sort.
MOST_HITS = 5_000
# When there are more hits, an arbitrary part is found. Then all hits among this many newest jobs are added.
NEWEST_JOBS = 20_000
# A text in an error is searched in this many of the newest jobs that have an error.
NEWEST_ERRORS = 20_000


@dataclass(frozen=True)
class Searched:
    """Whether a search examined all jobs, or stopped at its limit of hits or of errors."""

    stopped_at_hits: bool = False
    stopped_at_errors: bool = False

    @property
    def is_all(self) -> bool:
        """Whether all jobs were examined."""
        return not (self.stopped_at_hits or self.stopped_at_errors)


def is_by_errors(wanted: JobFilter) -> bool:
    """Whether the search examines only the newest errors, since it has no other condition with an index."""
    return bool(wanted.error and not wanted.args and not wanted.tag and wanted.id is None)


def error_beyond(found: Range) -> Select[int]:
    """The id of the newest job with an error beyond `NEWEST_ERRORS`; no row when there are fewer."""
    with_error = select(Job.id).where(Job.error.is_not(None), *within(found))
    return with_error.order_by(Job.id.desc()).offset(NEWEST_ERRORS).limit(1)


def job_beyond(found: Range) -> Select[int]:
    """The id of the newest job beyond `NEWEST_JOBS`; no row when there are fewer."""
    return select(Job.id).where(*within(found)).order_by(Job.id.desc()).offset(NEWEST_JOBS).limit(1)


def newest_hits(wanted: JobFilter, found: Range) -> Select[int, str, str | None]:
    """Like `hits`, but scans the ids of a small range, the newest first."""
    some = _hits(wanted, within(found)).order_by(Job.id.desc())
    return some.limit(MOST_HITS)


def hits(wanted: JobFilter, found: Range) -> Select[int, str, str | None]:
    """Id, state and (if searched) error of jobs that may fit, at most `MOST_HITS` + 1, the newest first.

    Uses a materialized CTE with a limit: it finds any hits in any order, which are sorted afterwards. Without
    it, the planner might scan the primary key to get the order.
    """
    some = _hits(wanted, within(found, Job.id + 0)).limit(MOST_HITS + 1)
    found_some = some.cte("hits").prefix_with("MATERIALIZED", dialect="postgresql")
    return select(found_some).order_by(found_some.c.id.desc())


def _hits(wanted: JobFilter, bounds: list[ColumnElement[bool]]) -> Select[int, str, str | None]:
    conditions = [*fits(wanted), *bounds, *_indexed(wanted)]
    error: ColumnElement[Any] = null()
    if wanted.error:
        # The caller checks which of these errors fit. Checked here, a frequent argument with a rare text in
        # the error would read the whole table.
        error = Job.error.expression
        conditions.append(error.is_not(None))
    return select(Job.id, Job.state, error.label("error")).where(*conditions)


def newest_errors(wanted: JobFilter, found: Range) -> Select[int, str, str | None]:
    """Like `hits`, but only among the newest errors: those that contain the text as it is stored."""
    assert wanted.error is not None
    columns = [Job.id, Job.error, *(getattr(Job, name) for name in PLAIN)]
    newest = select(*columns).where(Job.error.is_not(None), *within(found))
    newest = newest.order_by(Job.id.desc()).limit(NEWEST_ERRORS)
    seen = newest.cte("newest").prefix_with("MATERIALIZED", dialect="postgresql").c
    statement = select(seen.id, seen.state, seen.error)
    conditions = [*fits(wanted, seen), _contains(seen.error, wanted.error)]
    return statement.where(*conditions).order_by(seen.id.desc())


def _indexed(wanted: JobFilter) -> list[ColumnElement[bool]]:
    """The conditions that have an index: on the arguments, the tags and the id."""
    found: list[ColumnElement[bool]] = []
    for argument in wanted.args:
        shapes = (cast(literal(shape, Text), JSONB) for shape in argument.shapes)
        found.append(or_(*(Job.args.contains(shape) for shape in shapes)))
    if wanted.tag is not None:
        tagged = Job.tags.bool_op("@>")(cast([wanted.tag], ARRAY(Text)))
        # The index is partial, without jobs that have no tags: the planner uses it only with this condition.
        found += [tagged, Job.tags != literal_column("'{}'::text[]")]
    if wanted.id is not None:
        found.append(Job.id == wanted.id)
    return found


def within(found: Range, key: Any = Job.id) -> list[ColumnElement[bool]]:
    """The conditions that a job is in the range. With an expression as `key` no index is used for them."""
    bounds = [key >= found.low] if found.low > 0 else []
    bounds += [key < found.high] if found.high < LAST_ID else []
    return [*bounds, *found.conditions]


def _contains(column: Any, text: str) -> ColumnElement[bool]:
    escaped = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return column.ilike(f"%{escaped}%", escape="\\")  # type: ignore[no-any-return]
