"""Imports the price lists of suppliers: each list is a batch, with a job for each of its rows."""

from __future__ import annotations

from collections.abc import Iterator

from . import tasks
from .extensions import db, opsjobs
from .models import PriceList

ROWS = 2_000


def import_list(rows: int = ROWS, *, has_mistakes: bool = True) -> int:
    """A supplier sends a price list. Returns the id of the batch. The caller commits."""
    listed = PriceList(rows=rows)
    db.session.add(listed)
    db.session.flush()
    with opsjobs.batch(
        "import_prices",
        on_end=tasks.close_price_list,
        on_failure=tasks.warn_buyer,
        meta={"price_list": listed.id},
    ) as batch:
        batch.enqueue_many(tasks.import_price, rows_of_list(rows, has_mistakes))
    listed.batch_id = batch.id
    return batch.id


def begin_list(rows: int) -> int:
    """A supplier sends the first half of a price list: its batch stays open. The caller commits."""
    listed = PriceList(rows=2 * rows)
    db.session.add(listed)
    batch = opsjobs.batch("import_prices").open()
    batch.enqueue_many(tasks.import_price, rows_of_list(rows, has_mistakes=False))
    listed.batch_id = batch.id
    return batch.id


def rows_of_list(rows: int, has_mistakes: bool) -> Iterator[dict[str, int | str]]:
    """The rows as the supplier typed them. Mistakes: an O for a zero, and articles that do not exist."""
    for number in range(1, rows + 1):
        article, price = number, f"{number % 90 + 10}.{number % 10}0"
        if has_mistakes and number % 167 == 5:
            price = price[:-1] + "O"
        if has_mistakes and number % 1_000 == 7:
            article += 90_000
        yield {"row": number, "article": article, "price": price}
