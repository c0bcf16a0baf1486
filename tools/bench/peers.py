"""Makes what the bench compares us with, beside our own environment: packages from PyPI, and our old code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / ".bench"
# The last commit before the pool.
BEFORE = "c6bcb4f2"
PGQUEUER = ("pgqueuer==1.6.*", "asyncpg", "uvloop")


def python_with(name: str, *requirements: str) -> str:
    """Return the Python of an environment that has these packages from PyPI. It is made once and kept."""
    folder = _FOLDER / name
    python, ready = folder / "bin" / "python", folder / "ready"
    words = "\n".join(requirements)
    if not ready.exists() or ready.read_text() != words:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        ready.write_text(words)
    return str(python)


def code_of(commit: str) -> str:
    """Return a folder with the tree of a commit of ours. It is made once and kept."""
    folder = _FOLDER / commit
    if not folder.exists():
        new = folder.with_suffix(".new")
        new.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(
            ["git", "archive", commit], check=True, capture_output=True, cwd=_FOLDER.parent
        )
        subprocess.run(["tar", "-x", "-C", str(new)], check=True, input=archive.stdout)
        new.rename(folder)
    return str(folder)
