"""The shop's price lists: each is a batch, whose failed rows the shop and its buyer hear of."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from .conftest import Perform, sign_in

ERRORS = (
    "SELECT error FROM opsjobs.jobs WHERE task = 'import_price' AND state = 'failed' ORDER BY id"
)
MAILS = "SELECT state FROM opsjobs.jobs WHERE task = 'warn_buyer'"


def test_a_price_list_is_imported_row_by_row_and_its_mistakes_are_told(
    visitor: FlaskClient, db: Any, shop: ModuleType, perform: Perform
) -> None:
    sign_in(visitor, "ops-demo")
    front = visitor.post("/price-lists", data={"rows": 8}, follow_redirects=True).text
    assert "not known yet" in front
    perform()
    (listed,) = db.session.scalars(db.select(shop.models.PriceList))
    assert listed.result == "failed: 6 of 8 rows imported"
    assert db.session.scalars(text(ERRORS)).all() == [
        "ValueError: row 5: the price '15.5O' is not a number",
        "LookupError: row 7: there is no article 90007",
    ]
    assert db.session.scalars(text(MAILS)).all() == ["finished"]
    prices = dict(db.session.execute(text("SELECT article, cents FROM prices")).all())
    assert prices == {1: 1_110, 2: 1_220, 3: 1_330, 4: 1_440, 6: 1_660, 8: 1_880}
    front = visitor.get("/").text
    assert "failed: 6 of 8 rows imported" in front
    assert f'href="/ops/jobs/batches/{listed.batch_id}"' in front


def test_a_list_without_mistakes_finishes(db: Any, shop: ModuleType, perform: Perform) -> None:
    shop.prices.import_list(rows=8, has_mistakes=False)
    perform()
    (listed,) = db.session.scalars(db.select(shop.models.PriceList))
    assert listed.result == "finished: 8 of 8 rows imported"
    assert db.session.scalars(text(MAILS)).all() == []


@pytest.mark.parametrize("rows", ["0", "2001", "-1"])
def test_a_list_of_no_or_too_many_rows_is_refused(visitor: FlaskClient, rows: str) -> None:
    sign_in(visitor, "admin")
    assert visitor.post("/price-lists", data={"rows": rows}).status_code == 400


def test_a_viewer_imports_nothing(visitor: FlaskClient) -> None:
    sign_in(visitor, "viewer")
    assert visitor.post("/price-lists").status_code == 403
