"""Knows what a picture was made from: a hash of the templates of its page and of the style.

`docs/_static/pictures.json` keeps the hash of each picture. A test names the pictures whose page has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, meta

from tools.screenshot.pages import SHOTS

ROOT = Path(__file__).parents[2]
RECORD = "pictures.json"


def hash_of(endpoint: str, root: Path = ROOT) -> str:
    """The hash of the templates and styles from which the page with this endpoint is made."""
    digest = hashlib.sha256()
    templates = root / "templates"
    styles = sorted((root / "static").glob("*.css"))
    for path in [*(templates / name for name in _templates(endpoint, templates)), *styles]:
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


def record(folder: Path, pictures: Mapping[str, str]) -> None:
    """Keep the hash of each of these pictures: their names, each with the endpoint of its page."""
    path = folder / RECORD
    hashes = json.loads(path.read_text()) if path.exists() else {}
    hashes |= {name: hash_of(endpoint) for name, endpoint in pictures.items()}
    kept = {name: hashes[name] for name in sorted(hashes) if (folder / name).exists()}
    path.write_text(json.dumps(kept, indent=0) + "\n")


def find_stale(folder: Path, root: Path = ROOT) -> list[str]:
    """The pictures of a folder whose page is made from something else now, or of which that is not known."""
    hashes = json.loads((folder / RECORD).read_text())
    endpoints = {shot.name: shot.endpoint for shot in SHOTS}
    stale = []
    for picture in sorted(folder.glob("*.png")):
        endpoint = endpoints.get(picture.stem.rsplit("-", 2)[0])
        if endpoint is None or hashes.get(picture.name) != hash_of(endpoint, root):
            stale.append(picture.name)
    return stale
