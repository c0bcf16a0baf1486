"""The links of the wheel and of its README come from one setting, empty until there is an address."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.support.sources import ROOT
from tools.lanes import RESULTS
from tools.lanes.results import read
from tools.metadata import ProjectAddress

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, HOOK = PYPROJECT["project"], PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]


def _completed(address: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    ProjectAddress(str(ROOT), {"public-address": address}).update(metadata)
    return metadata


def test_without_an_address_nothing_is_invented() -> None:
    address = HOOK["custom"]["public-address"]
    if address:
        pytest.skip("the project has an address now")
    found = _completed(address)
    assert found["urls"] == {}
    assert found["readme"]["text"] == (ROOT / "README.md").read_text()


def test_with_an_address_every_link_and_picture_of_the_readme_is_below_it() -> None:
    found = _completed("https://forge.example/jobs/")
    assert found["urls"]["Source"] == "https://forge.example/jobs"
    text = found["readme"]["text"]
    assert "](https://forge.example/jobs/raw/HEAD/docs/_static/" in text
    assert "](https://forge.example/jobs/blob/HEAD/docs/" in text
    assert re.findall(r"\]\((?!https://forge\.example/jobs/|https?:|#)", text) == []


def test_only_what_we_use_from_the_inside_has_an_upper_bound_with_a_reason() -> None:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    asked = [Requirement(line) for group in groups for line in group]
    bounded = [each for each in asked if {bound.operator for bound in each.specifier} - {">="}]
    assert {each.name for each in bounded} == {"rq", "rq-dashboard"}
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for above, line in pairwise(lines):
        if any(f'"{each.name}>=' in line for each in bounded):
            assert above.strip().startswith("# "), line


def test_each_python_of_the_classifiers_has_passed_a_lane() -> None:
    told = [line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if ":: 3." in line]
    ran = {
        row.versions["python"].rpartition(".")[0] for row in read(RESULTS) if row.result == "passed"
    }
    assert {*told} <= ran
    assert PROJECT["requires-python"] == f">={told[0]}"
