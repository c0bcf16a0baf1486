"""Runs a command for a step, and says how it failed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

# The last lines of an output say what went wrong.
_LINES = 25


def command_faults(words: Sequence[object], folder: Path | None = None) -> Iterator[str]:
    """How a command ended that failed, with its last lines."""
    done = output(words, folder)
    if done.returncode:
        said = "\n".join(done.stdout.strip().splitlines()[-_LINES:])
        yield f"{' '.join(done.args[:6])} … ended with {done.returncode}:\n{said}"


def output(words: Sequence[object], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command that has ended, with what it said."""
    return subprocess.run(
        list(map(str, words)),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
