"""`--few-cases` makes two cases of a test with many, and all of one with few."""

from __future__ import annotations

from pathlib import Path

from tests.support.processes import Children

CASES = """
import pytest

@pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.skip), 1, 2, 3, 4, 5, 6])
def test_many(number): pass

@pytest.mark.parametrize("number", [1, 2, 3])
def test_three(number): pass

@pytest.mark.parametrize("number", [1, 2])
def test_two(number): pass

def test_one(): pass
"""


def test_the_first_and_the_last_case_are_made(children: Children, tmp_path: Path) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    words = ("-m", "pytest", "-p", "tests.conftest", str(tmp_path))
    run = children.python(*words, "-v", "--few-cases")
    assert run.wait(60) == 0
    made = [line.partition("::")[2].split()[0] for line in run.log.splitlines() if "::" in line]
    assert made == [
        *("test_many[1]", "test_many[6]", "test_three[1]", "test_three[3]"),
        *("test_two[1]", "test_two[2]", "test_one"),
    ]
    assert "7 passed, 6 deselected" in run.log
