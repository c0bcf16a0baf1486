"""Knows what a picture was made from: a hash of the templates of its page and of the style.

`docs/_static/pictures.json` keeps the hash of each picture. A test names the pictures whose page has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jinja2 import Environment, meta

from tools.screenshot import moving
from tools.screenshot.pages import SHOTS

ROOT = Path(__file__).parents[2]
RECORD = "pictures.json"


def list_endpoints(picture: str) -> frozenset[str]:
    """The endpoints of the pages that a picture shows, by its name; none when nobody takes such a picture."""
    if picture == moving.NAME:
        return frozenset(shot.endpoint for shot, _ in moving.FRAMES)
    name = picture.rsplit("-", 2)[0]
    return frozenset(shot.endpoint for shot in SHOTS if shot.name == name)


def hash_of(endpoints: Iterable[str], root: Path = ROOT) -> str:
    """The hash of the templates and styles from which the pages with these endpoints are made."""
    digest = hashlib.sha256()
    templates = root / "templates"
    names = {name for endpoint in endpoints for name in _templates(endpoint, templates)}
    styles = sorted((root / "static").glob("*.css"))
    for path in [*(templates / name for name in sorted(names)), *styles]:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _templates(endpoint: str, templates: Path) -> list[str]:
    """The templates in folders that begin with the first word of the endpoint, and what they include."""
    stem = endpoint.partition("_")[0].rstrip("s")
    own = [*templates.glob(f"opsjobs/{stem}*.html"), *templates.glob(f"opsjobs/{stem}*/*.html")]
    waiting = {path.relative_to(templates).as_posix() for path in own}
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= _included((templates / name).read_text()) - found
    return sorted(found)


@cache
def _included(template: str) -> frozenset[str]:
    names = meta.find_referenced_templates(Environment(autoescape=True).parse(template))
    return frozenset(name for name in names if name is not None)


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, by their names."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".gif"))


def record(folder: Path, taken: Iterable[str]) -> None:
    """Keep the hash of each of these pictures, and forget those that are gone."""
    path = folder / RECORD
    hashes = json.loads(path.read_text()) if path.exists() else {}
    hashes |= {name: hash_of(list_endpoints(name)) for name in taken}
    kept = {
        picture.name: hashes[picture.name]
        for picture in list_pictures(folder)
        if picture.name in hashes
    }
    path.write_text(json.dumps(kept, indent=0) + "\n")


def find_stale(folder: Path, root: Path = ROOT) -> list[str]:
    """The pictures of a folder whose page is made from something else now, or of which that is not known."""
    hashes = json.loads((folder / RECORD).read_text())
    stale = []
    for picture in list_pictures(folder):
        endpoints = list_endpoints(picture.name)
        if not endpoints or hashes.get(picture.name) != hash_of(endpoints, root):
            stale.append(picture.name)
    return stale
