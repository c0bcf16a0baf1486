"""The dispatch loop: hands out due jobs that no commit and no worker has handed out already."""

from __future__ import annotations

from ..engine.dispatch import dispatch_due
from ..engine.redis_reads import answering, ping
from .shape import IDLE, Loop, Pass, count, every


def run(context: Pass) -> str:
    """Dispatch every line that has due jobs and room in its window.

    No lock: the hook after a commit and each worker's flush dispatch the same lines at the same time anyway.
    """
    host = context.host
    with answering():
        # While Redis is away nothing is taken, since all of it would have to be put back.
        if context.memory.get("is_away"):
            ping(host.broker, context.queue_names())
        context.memory["is_away"] = True
        handed_out = dispatch_due(context.connection, host.broker, host.settings, context.now)
        context.memory["is_away"] = False
    return f"handed out {count(handed_out, 'job')}" if handed_out else IDLE


LOOP = Loop("dispatch", every(1), run, is_alone=False)
