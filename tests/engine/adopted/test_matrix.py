"""Each RQ status × way of enqueuing × worker × serializer × prefix: the row says what RQ says."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
from rq.job import JobStatus

from tests.support.adoption_matrix import WAYS, WORKERS
from tests.support.processes import Children

pytestmark = pytest.mark.lane

# With JSON, each way but RQ's cron.
_JOBS = 3 * (2 * len(WAYS) - 1)
_HELD = 2
BY_DEFAULT, OTHER = "rq", "shop.{a}"
# The others are variants: each kind of worker with each prefix.
SHOWN = [("rq", BY_DEFAULT), ("ours", OTHER)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("worker", "prefix"),
    [
        pytest.param(*each, marks=() if each in SHOWN else pytest.mark.variants)
        for each in product(WORKERS, (BY_DEFAULT, OTHER))
    ],
)
def test_each_row_says_what_rq_says(
    children: Children, tmp_path: Path, worker: str, prefix: str
) -> None:
    """RQ reads its prefix when it is imported, so this is a process of its own."""
    env = {} if prefix == BY_DEFAULT else {"RQ_KEY_PREFIX": prefix}
    command = ("-m", "tests.support.adoption_matrix", worker, str(tmp_path))
    child = children.python(*command, env=env)
    assert child.wait(280) == 0, child.log
    found = json.loads(child.log.splitlines()[-1])
    assert found["differences"] == []
    assert found["compared"] == 2 * _JOBS + 2 * (_JOBS + _HELD)
    # RQ cannot stop a job of a SimpleWorker.
    left_out = {"stopped"} if worker == "simple" else set()
    assert set(found["words"]) == {status.value for status in JobStatus} - left_out
    assert found["prefixes"] == [prefix]
