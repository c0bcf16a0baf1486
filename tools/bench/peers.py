"""Makes environments of their own for what the bench compares us with, so that ours stays as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / ".bench"
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
