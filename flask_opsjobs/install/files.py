"""Writes the files of a host's app."""

from __future__ import annotations

import shutil
from pathlib import Path


def write_file(path: Path, text: str) -> None:
    """Write a file as a whole. When that fails, as on a full disk, what stood in it stays.

    A kill may leave a file with `.new` behind its name: to write it again uses the same one, and removes it.
    Raises `OSError`, which names the file.
    """
    path = path.resolve()
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8", newline="")
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
