"""Lists the missed slots of an entry for which no job was enqueued later."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfoNotFoundError

from ..core import sql
from ..core.db import Connection
from .expression import Schedule

# At most so many rows of the run history are read; each may hold a run of slots.
_MOST_ROWS = 200


def list_missed(connection: Connection, name: str, most: int) -> list[datetime]:
    """The last `most` slots that were missed and not made up for, in order. Locks nothing.

    The slots of a run are those of the expression that counted then.
    """
    asked = {"entry": name, "most": _MOST_ROWS}
    found: list[datetime] = []
    for row in connection.execute(sql.load("list_cron_missed"), asked):
        first, last, number, expression, zone, up = row
        made_up = set(up)
        slots = [first]
        if number > 1:
            schedule = Schedule(expression, zone)
            try:
                slots = schedule.slots_between(first - timedelta(seconds=1), last, number)
            except ZoneInfoNotFoundError:
                continue  # a zone that this machine does not know any more: nobody can name them
        found += [slot for slot in reversed(slots) if slot not in made_up]
        if len(found) >= most:
            break
    return sorted(found[:most])
