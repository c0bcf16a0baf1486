from __future__ import annotations

from typing import Any

import pytest

from flask_opsjobs import OpsJobs, Task


@pytest.fixture
def fetch(opsjobs: OpsJobs) -> Task:
    """A task that keeps its result."""

    @opsjobs.task(record_output=True, queue="fetch")
    def fetch(account_id: int = 1) -> dict[str, Any]:
        return {"id": account_id, "pictures": ["a", "b", "c"]}

    return fetch


@pytest.fixture
def bill(opsjobs: OpsJobs) -> Task:
    """A task that takes a result, and keeps its own."""

    @opsjobs.task(record_output=True)
    def bill(customer: int = 0, note: str = "") -> int:
        return customer * 10

    return bill
