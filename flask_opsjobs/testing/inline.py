"""Performs due jobs right after each commit, for tests with the marker `opsjobs(inline=True)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..host import CommitNote
from ..jobs.perform.current import find_claimed


class InlineDispatcher:
    """Takes the place of an app's dispatcher. `errors` are those of the test's set-up, not of jobs."""

    def __init__(self, perform_due: Callable[[], object]) -> None:
        self._perform_due = perform_due
        self.errors: list[Exception] = []

    def has_room(self, _queue: str) -> bool:
        """Never: a job is not inserted as `queued`, because nobody would push it."""
        return False

    def push(self, _notes: Sequence[CommitNote]) -> None:
        """Perform what is due. What a running job commits is left to who runs that job."""
        if find_claimed() is not None:
            return
        try:
            self._perform_due()
        except Exception as error:
            # Who calls this after a commit only logs it.
            self.errors.append(error)
            raise
