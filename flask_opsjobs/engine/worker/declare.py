"""Records which limiters the tasks of a starting process declare."""

from __future__ import annotations

import logging

from ...core.db import Connection, connect_apart
from ...host import Host
from ...limits import transitions as limit_transitions
from ..dispatch.dispatch import read_clock

_log = logging.getLogger("flask_opsjobs")


def declare_limiters(host: Host, process: str) -> None:
    """Record the limiters of the app's tasks, before this process claims or dispatches a job. Commits.

    When processes run different code, the declaration of the one that started last holds.
    """
    limits = [each.declared.limit for each in host.tasks.values() if each.declared.limit]
    if not limits:
        return
    connection: Connection = connect_apart(host.engine)
    try:
        now = read_clock(connection)
        for name in limit_transitions.declare(connection, host.secrets, limits, process, now):
            _log.warning("limiter %s is declared differently than by the processes before", name)
    finally:
        connection.close()
