"""What happens right after a host's commit: the lines it touched are dispatched, and nothing may reach the host."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from redis import RedisError

from ..host import Host
from .delivery import Delivery
from .dispatch import Dispatcher, push_or_recall, read_clock

_log = logging.getLogger("flask_opsjobs.dispatch")
# After Redis failed once, the process leaves dispatch to the loop for this long.
_SILENCE_SECONDS = 5.0

Line = tuple[str, str]


class Handout:
    """The hook of one process. Gives up quickly: the dispatch loop does what is left undone within a second."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._silent_until = 0.0

    def after_commit(self, notes: Sequence[Line | Delivery]) -> None:
        """Push jobs that were born `queued`, and dispatch the lines (line, queue) of the others."""
        if time.monotonic() < self._silent_until:
            return
        born = [note for note in notes if isinstance(note, Delivery)]
        lines = dict.fromkeys(note for note in notes if not isinstance(note, Delivery))
        try:
            self._hand_out(born, list(lines))
        except RedisError as error:
            self._silent_until = time.monotonic() + _SILENCE_SECONDS
            _log.warning(
                "Redis does not answer (%s); jobs are left to the dispatch loop for 5 s",
                type(error).__name__,
            )

    def _hand_out(self, born: Sequence[Delivery], lines: Sequence[Line]) -> None:
        host = self._host
        with host.spare.one() as connection:
            if born:
                push_or_recall(connection, host.broker, born, quick=True)
            if lines:
                now = read_clock(connection)
                dispatcher = Dispatcher(connection, host.broker, host.settings, quick=True)
                for line, queue in lines:
                    dispatcher.dispatch_line(line, queue, now)
