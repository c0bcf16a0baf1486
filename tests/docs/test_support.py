"""What is supported is data: each row has a word, and each promise names tests that exist, and that ran."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from tests.docs.proofs import WORDS, Proofs, find_faults, find_unproven
from tests.support.sources import ROOT
from tools.lanes import RESULTS
from tools.lanes.results import read

ROWS: list[dict[str, Any]] = tomllib.loads((ROOT / "docs/support.toml").read_text())["row"]


def test_each_row_is_whole_and_names_tests_that_exist() -> None:
    lanes = {row.name for row in read(RESULTS) if row.result == "passed"}
    assert list(find_faults(ROWS, lanes)) == []
    assert {row["word"] for row in ROWS} == set(WORDS)


def test_the_page_explains_each_word() -> None:
    page = (ROOT / "docs/support.md").read_text()
    assert re.findall(r"^\| \*([a-z -]+)\* \|", page, re.MULTILINE) == list(WORDS)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"claim": "It is fast.", "word": "tested"}, "names no test"),
        ({"claim": "It is fast.", "word": "supported", "shown_by": []}, "names no test"),
        ({"claim": "It is fast.", "word": "intentionally unsupported"}, "names no test"),
        ({"claim": "It is fast.", "word": "blazing"}, "'blazing' is no word"),
        (
            {
                "claim": "It is fast.",
                "word": "tested",
                "shown_by": ["tests/test_log.py::test_fast"],
            },
            "tests/test_log.py::test_fast does not exist",
        ),
        (
            {"claim": "It is fast.", "word": "tested", "lanes": ["lowest", "postgres-15"]},
            "the lane postgres-15 is not there or has not passed",
        ),
        (
            {"claim": "It is fast.", "word": "best-effort", "shown_by": ["tests/fast.py::test_it"]},
            "tests/fast.py::test_it does not exist",
        ),
    ],
)
def test_a_claim_without_its_test_is_found(row: dict[str, Any], fault: str) -> None:
    assert list(find_faults([row], {"lowest"})) == [f"It is fast. – {fault}"]


def test_a_claim_whose_test_did_not_run_is_found() -> None:
    rows = [
        {"claim": "One.", "word": "tested", "shown_by": ["tests/a.py::test_it"]},
        {"claim": "Two.", "word": "supported", "shown_by": ["tests/a.py::test_other"]},
        {"claim": "Three.", "word": "host-owned", "shown_by": ["tests/b.py::test_refusal"]},
        {"claim": "Refused.", "word": WORDS[-1], "shown_by": ["tests/b.py::test_refusal"]},
        {"claim": "Four.", "word": "supported", "shown_by": ["tests/a.py::test_shape"]},
        {"claim": "Five.", "word": "supported", "shown_by": ["tests/a.py::test_shape[one]"]},
        {"claim": "Six.", "word": "supported", "shown_by": ["tests/a.py::test_shape[two]"]},
    ]
    ran = {"tests/a.py::test_it[fast]", "tests/a.py::test_shape[one]"}
    assert find_unproven(rows, ran, skipped={"tests/a.py::test_shape[two]"}) == [
        "Two. – tests/a.py::test_other did not pass, or not in each case",
        "Refused. – tests/b.py::test_refusal did not pass, or not in each case",
        "Four. – tests/a.py::test_shape did not pass, or not in each case",
        "Six. – tests/a.py::test_shape[two] did not pass, or not in each case",
    ]


def test_what_passed_and_what_was_skipped_is_noted() -> None:
    """A case that is skipped in its body, and one that a mark skips."""
    proofs = Proofs()
    for case, when, outcome in (
        ("one", "call", "passed"),
        ("two", "call", "skipped"),
        ("three", "setup", "skipped"),
        ("four", "call", "failed"),
    ):
        id = f"tests/a.py::test_it[{case}]"
        report = pytest.TestReport(id, ("", None, ""), {}, outcome, None, when)  # type: ignore[arg-type]
        proofs.pytest_runtest_logreport(report)
    assert (len(proofs.passed), len(proofs.skipped)) == (1, 2)
