"""Lists the missed slots of an entry for which no job was enqueued later."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfoNotFoundError

from ..core import sql
from ..core.db import Connection
from .expression import Schedule

# The most rows of the run history that are read. One row may stand for many slots.
_MOST_ROWS = 200


def list_missed(connection: Connection, name: str, most: int) -> list[datetime]:
    """The last `most` missed slots without a job enqueued later, oldest first. Locks nothing.

    The slots of a row that stands for many are computed from the expression that was in use then.
    """
    params = {"entry": name, "most": _MOST_ROWS}
    found: list[datetime] = []
    for row in connection.execute(sql.load("list_cron_missed"), params):
        first, last, number, expression, zone, up = row
        made_up = set(up)
        slots = [first]
        if number > 1:
            schedule = Schedule(expression, zone)
            try:
                slots = schedule.slots_between(first - timedelta(seconds=1), last, number)
            except ZoneInfoNotFoundError:
                continue  # this machine no longer knows the zone, so the slots cannot be computed
        found += [slot for slot in reversed(slots) if slot not in made_up]
        if len(found) >= most:
            break
    return sorted(found[:most])
