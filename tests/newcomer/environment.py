"""Installs what a `pip install` of the docs names, out of the libraries here: no package index is asked."""

from __future__ import annotations

import shlex
import sysconfig
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement


class Environment:
    """A new virtual environment with nothing in it. Our wheel is at `site`."""

    def __init__(self, folder: Path, site: Path) -> None:
        venv.create(folder, symlinks=True)
        self.python = str(folder / "bin/python")
        self.site = site
        self._packages = folder / "lib" / f"python{sysconfig.get_python_version()}/site-packages"
        (self._ours,) = distributions(name="flask-opsjobs", path=[str(site)])

    def install(self, command: str) -> None:
        """Link what this command names, what that needs, and nothing else."""
        # A checkout is named by its folder.
        named = [Requirement(word.rpartition("/")[2]) for word in shlex.split(command)[2:]]
        for found in self._closure(named):
            assert found.files is not None, found
            for name in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
                link = self._packages / name
                if not link.exists():
                    link.symlink_to(str(found.locate_file(name)))

    def _closure(self, wanted: list[Requirement]) -> Iterator[Distribution]:
        seen: set[str] = set()
        while wanted:
            required = wanted.pop()
            if str(required) in seen:
                continue
            seen.add(str(required))
            is_ours = required.name.replace("_", "-") == "flask-opsjobs"
            found = self._ours if is_ours else distribution(required.name)
            known = found.metadata.get_all("Provides-Extra") or []
            assert required.extras <= {*known}, f"{required}: there is no such extra"
            assert required.specifier.contains(found.version, prereleases=True), required
            yield found
            extras = [{"extra": extra} for extra in ("", *required.extras)]
            wanted += [
                other
                for other in map(Requirement, found.requires or ())
                if other.marker is None or any(map(other.marker.evaluate, extras))
            ]
