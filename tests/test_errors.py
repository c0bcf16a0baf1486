"""All errors that a host can meet are exported, and explained with their cause and their fix."""

from __future__ import annotations

import inspect
import re

import flask_opsjobs
from flask_opsjobs import errors
from tests.support.sources import ROOT

DECLARED = {
    name
    for name, found in vars(errors).items()
    if inspect.isclass(found) and issubclass(found, errors.OpsJobsError)
}
# A heading, a paragraph that says the cause, and one that says the fix.
EXPLAINED = re.compile(r"^### (\w+)\n\nCause: [^#]+?\n\nFix: [^#]+?(?=\n#|\Z)", re.M)


def test_every_error_is_exported() -> None:
    exported = {name for name in flask_opsjobs.__all__ if name in vars(errors)}
    assert exported == DECLARED


def test_every_error_is_explained_with_cause_and_fix() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    assert sorted(EXPLAINED.findall(page)) == sorted(DECLARED)
    assert page.count("\n### ") == len(DECLARED)
