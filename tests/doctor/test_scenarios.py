"""Every check has a scenario in which it answers with each of its levels, and in which it is fine.

The fixture `ask` sees that a test shows what its mark says.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

from flask_opsjobs.doctor.registry import CHECKS
from tests import doctor


def _marks() -> Iterator[Any]:
    """The marks of all tests of this folder, also those of one set of parameters."""
    for found in pkgutil.iter_modules(doctor.__path__):
        module = importlib.import_module(f"{doctor.__name__}.{found.name}")
        for _, test in inspect.getmembers(module, inspect.isfunction):
            for mark in getattr(test, "pytestmark", ()):
                yield mark
                if mark.name == "parametrize":
                    yield from (each for row in mark.args[1] for each in getattr(row, "marks", ()))


def test_every_level_of_every_check_is_shown() -> None:
    shown = [mark.args for mark in _marks() if mark.name == "shows"]
    levels = {(check, level) for check, levels in shown for level in levels}
    assert levels == {(check.id, level) for check in CHECKS.values() for level in check.levels}
