"""What pages read of the books."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from .models import Book

_MOST_QUEUES = 500


@dataclass(frozen=True)
class BookRow:
    """One queue's books, counted at `counted_at`, compared with Redis and the beats at `compared_at`."""

    queue: str
    counted_at: datetime
    born: int
    pruned: int
    kept: int
    waiting: int
    queued: int
    started: int
    compared_at: datetime | None
    queued_nowhere: int
    started_unheld: int
    deliveries_without_row: int

    @property
    def unaccounted(self) -> int:
        """Jobs that were born and not removed and yet have no row; below 0 when rows came from nowhere."""
        return self.born - self.pruned - self.kept

    @property
    def final(self) -> int:
        """Jobs that have ended and are kept."""
        return self.kept - self.waiting - self.queued - self.started

    @property
    def is_balanced(self) -> bool:
        """Whether nothing is missing and nothing is too much."""
        return not (
            self.unaccounted
            or self.queued_nowhere
            or self.started_unheld
            or self.deliveries_without_row
        )


def list_books(session: Session) -> Sequence[BookRow]:
    """The books by queue, at most 500; none before the first count. A queue without jobs that balances is left out."""
    columns = [getattr(Book, name) for name in BookRow.__annotations__]
    rows = session.execute(select(*columns).order_by(Book.queue).limit(_MOST_QUEUES))
    books = [BookRow(*row) for row in rows]
    return [book for book in books if book.kept or not book.is_balanced]
