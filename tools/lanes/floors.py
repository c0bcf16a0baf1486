"""Reads the lowest version of each dependency from pyproject.toml, as constraints for pip."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator

from packaging.requirements import Requirement
from packaging.version import Version

from . import ROOT

# What a host may install, and what the tests need: not the tools of developers, nor those of the docs.
EXTRAS = ("binary", "testing", "bridge", "prometheus", "otel", "test")


def requirements() -> Iterator[Requirement]:
    """The dependencies and those of the extras, without our own name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (project["optional-dependencies"][extra] for extra in EXTRAS)
    for group in (project["dependencies"], *extras):
        for line in group:
            if (required := Requirement(line)).name != project["name"]:
                yield required


def floors() -> dict[str, Version]:
    """The lowest version of each; the highest of them where two groups name one package.

    Raises `ValueError` for a dependency without a lowest version.
    """
    found: dict[str, Version] = {}
    for required in requirements():
        lowest = [Version(each.version) for each in required.specifier if each.operator == ">="]
        if not lowest:
            raise ValueError(f"pyproject.toml: {required} has no lowest version: write one, >=…")
        found[required.name] = max([*lowest, *filter(None, [found.get(required.name)])])
    return found


def constraints(names: Collection[str]) -> str:
    """A constraint file that installs the packages of these names at their floors; `*` is all."""
    lines = [
        f"{name}=={version}\n"
        for name, version in sorted(floors().items())
        if "*" in names or name in names
    ]
    if not lines:
        raise ValueError(f"pyproject.toml asks for none of {', '.join(names)}")
    return "".join(lines)
