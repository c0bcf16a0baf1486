"""Says what a step of the check is, and what it may find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


class NotRun(Exception):
    """This machine does not let the step run. It has neither passed nor failed."""


class Failed(Exception):
    """What a step needs cannot be built or installed, so the step has failed."""


@dataclass(frozen=True)
class Release:
    """What is checked: the checkout, and the folder of the wheel and the sdist that were built from it."""

    root: Path
    dist: Path

    @property
    def wheel(self) -> Path:
        """The only wheel."""
        (found,) = self.dist.glob("*.whl")
        return found

    @property
    def sdist(self) -> Path:
        """The only sdist."""
        (found,) = self.dist.glob("*.tar.gz")
        return found


@dataclass(frozen=True)
class Step:
    """One thing that must hold. `faults` yields what is wrong, and `to_do` says how that is mended."""

    name: str
    must_hold: str
    faults: Callable[[Release], Iterable[str]]
    to_do: str
    # A person must decide it, and the check is green without.
    is_left_to_a_person: bool = False
