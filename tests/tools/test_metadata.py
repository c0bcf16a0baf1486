"""The links of the wheel and of its README come from one setting, empty until there is an address."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from tests.support.sources import ROOT
from tools.metadata import ProjectAddress

HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]


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
    assert "](docs/" not in text
