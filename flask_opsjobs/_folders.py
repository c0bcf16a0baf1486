"""Finds the folders of templates, static files and migrations: beside the package, or in it (in a wheel)."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """The folder `templates`, `static` or `migrations`. Raises `FileNotFoundError` when neither place has it.

    `importlib.resources` does not find these folders in an editable install.
    """
    for place in (_PACKAGE / name, _PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"flask_opsjobs has no folder {name!r}: the installation is incomplete")
