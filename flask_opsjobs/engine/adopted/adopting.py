"""Makes one pass of adopting over one Redis: looks at it, reads what is new or has moved, writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ...core.db import Connection
from ...jobs.adopted import transitions
from ...jobs.adopted.merge import Moment
from ...jobs.adopted.transitions import Written
from .look import MOST_IDS, look
from .memory import Memory
from .pickle_view import Hides
from .places import RedisPlace
from .read_jobs import read_jobs

# So many hashes are read in one pass; while more wait, the next pass follows at once.
MOST_JOBS = 2_000
# Passes that follow at once do not look again before this time.
_LOOK_AGAIN = timedelta(seconds=10)


@dataclass
class Adopted:
    """What one pass did. `waiting`: jobs for the next pass. `in_turns`: keys that are read in turns.

    `again`: ids of ended jobs that RQ has as they were before they ran.
    """

    adopted: int = 0
    changed: int = 0
    unseen: int = 0
    refused: int = 0
    waiting: int = 0
    left_out: int = 0
    in_turns: Sequence[str] = field(default_factory=list)
    again: Sequence[int] = field(default_factory=list)


def adopt_jobs(
    connection: Connection, place: RedisPlace, memory: Memory, hides: Hides, now: datetime
) -> Adopted:
    """Make one pass. Commits, and never while Redis is asked. Raises `RedisError`.

    Redis is read before Postgres is written, and what is written bears the time before the read: so a slower
    copy of the loop never overwrites what a faster one saw later.
    """
    report = Adopted()
    is_new_walk = memory.cursor == 0
    has_looked = (
        memory.looked_at is None or not memory.waiting or now - memory.looked_at >= _LOOK_AGAIN
    )
    if has_looked:
        found = look(place.redis, memory.starts(), memory.tops, memory.cursor)
        memory.keep(found, now)
        report.left_out = found.left_out
    before = transitions.find_look_before(connection, place.name)
    # At the start of the process, and once in each walk.
    if memory.read_since is not None and (not memory.has_swept or (has_looked and is_new_walk)):
        _note_vanished(connection, place, memory)
    looked_at = memory.looked_at or now
    moment = Moment(looked_at, now, before)
    written = _write_waiting(connection, place, memory, hides, moment)
    report.adopted, report.changed = written.adopted, written.changed
    report.unseen, report.refused = written.unseen, written.refused
    report.again = written.again
    report.waiting = memory.waiting
    report.in_turns = [structure.key for structure in memory.in_turns]
    if not memory.waiting and memory.read_since is not None:
        walked_at = looked_at if has_looked and memory.cursor == 0 else None
        transitions.note_look(connection, place.name, memory.read_since, walked_at)
    # A newer look has changed them, or their row is gone: the next pass reads them again.
    memory.note_again(rq_id.encode() for rq_id in written.overtaken)
    return report


def _write_waiting(
    connection: Connection, place: RedisPlace, memory: Memory, hides: Hides, moment: Moment
) -> Written:
    """Read and write jobs that are new or have moved. Those of a pass that fails wait for the next one."""
    wanted = memory.take(MOST_JOBS)
    if not wanted:
        return Written()
    try:
        seen, gone = read_jobs(place.redis, memory, wanted, hides)
        return transitions.write_look(connection, place.name, list(seen.values()), gone, moment)
    except Exception:
        memory.note_again(wanted)
        raise


def _note_vanished(connection: Connection, place: RedisPlace, memory: Memory) -> None:
    """Let the jobs be read that are open in Postgres and in no structure."""
    after = 0
    while rows := transitions.list_open(connection, place.name, after, MOST_IDS):
        memory.note_unplaced(row.rq_id.encode() for row in rows)
        after = rows[-1].id
    memory.has_swept = True
