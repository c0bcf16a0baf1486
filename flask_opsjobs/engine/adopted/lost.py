"""Finds adopted jobs whose Redis has lost them before anybody saw their end, and ends them as `unknown`.

The adopt loop does the same at its next looks. A restore does it at once, and names the jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rq.job import Job as RQJob

from ...core.db import Connection
from ...jobs.adopted import transitions
from ...jobs.adopted.merge import Moment
from ...jobs.adopted.transitions import OpenJob
from .places import RedisPlace

# So many jobs are asked for in one round trip, and ended in one transaction.
_AT_ONCE = 2_000


def find_lost(connection: Connection, place: RedisPlace) -> list[OpenJob]:
    """Return the jobs that are open in Postgres, and of which RQ has no record. Raises `RedisError`.

    Writes nothing, locks nothing. An id that RQ has used again counts as there: the adopt loop tells its jobs
    apart.
    """
    lost: list[OpenJob] = []
    after = 0
    while rows := transitions.list_open(connection, place.name, after, _AT_ONCE):
        with place.redis.pipeline(transaction=False) as pipe:
            for row in rows:
                pipe.exists(RQJob.key_for(row.rq_id))
            lost += [
                row for row, is_there in zip(rows, pipe.execute(), strict=True) if not is_there
            ]
        after = rows[-1].id
    return lost


def end_lost(
    connection: Connection, place: RedisPlace, lost: Sequence[OpenJob], now: datetime
) -> int:
    """End these jobs as `unknown`, between the last look of the adopt loop and `now`; return how many ended.

    `now` is a time before Redis was asked: what a newer look or a worker has changed since is left alone.
    Commits page by page.
    """
    moment = Moment(now, now, transitions.find_look_before(connection, place.name))
    ended = 0
    for start in range(0, len(lost), _AT_ONCE):
        gone = [job.rq_id for job in lost[start : start + _AT_ONCE]]
        ended += transitions.write_look(connection, place.name, (), gone, moment).unseen
    return ended
