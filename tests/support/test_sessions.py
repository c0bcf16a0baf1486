"""A session that is closed in a test is the session that is opened next, there or in the next test."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.processes import Children

CASES = """
import pytest
from sqlalchemy import text

@pytest.mark.parametrize("number", [1, 2, 3])
def test_one_session(number, db):
    for _ in range(2):
        print("session", db.session.scalar(text("SELECT pg_backend_pid()")))
        db.session.remove()
        db.engine.dispose()
"""


def test_tests_hand_their_session_on(children: Children, tmp_path: Path) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    run = children.python("-m", "pytest", "-p", "tests.conftest", str(tmp_path), "-s", "-q")
    assert run.wait(60) == 0
    found = re.findall(r"session (\d+)", run.log)
    assert len(found) == 6
    assert len(set(found)) == 1
