"""Pictures exist, and one whose page has changed since is found."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.support.sources import ROOT, files
from tools.screenshot import moving
from tools.screenshot.made_from import find_stale, record


def test_each_picture_that_a_page_shows_exists_and_has_words_for_who_cannot_see_it() -> None:
    for page in [*files("docs", "*.md"), ROOT / "README.md"]:
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / target).is_file(), (page.name, target)
            assert len(words) > 15, (page.name, target)


def test_the_moving_picture_is_stale_when_one_of_its_pages_is(tmp_path: Path) -> None:
    pictures, root = tmp_path / "pictures", tmp_path / "root"
    pictures.mkdir()
    shutil.copytree(ROOT / "templates", root / "templates")
    shutil.copytree(ROOT / "static", root / "static")
    (pictures / moving.NAME).write_bytes(b"")
    record(pictures, [moving.NAME])
    assert find_stale(pictures, root) == []
    template = root / "templates/opsjobs/audit/page.html"
    template.write_text(template.read_text() + "<p>New</p>")
    assert find_stale(pictures, root) == [moving.NAME]


def test_a_stale_picture_is_found(tmp_path: Path) -> None:
    pictures, root = tmp_path / "pictures", tmp_path / "root"
    pictures.mkdir()
    shutil.copytree(ROOT / "templates", root / "templates")
    shutil.copytree(ROOT / "static", root / "static")
    names = ["queues-wide-light.png", "doctor-wide-light.png", "workers-wide-light.png"]
    for name in names:
        (pictures / name).write_bytes(b"")
    record(pictures, names[:2])
    # Nobody knows from what the third was taken.
    assert find_stale(pictures, root) == [names[2]]
    template = root / "templates/opsjobs/doctor/page.html"
    template.write_text(template.read_text() + "<p>New</p>")
    assert find_stale(pictures, root) == sorted(names[1:])
    style = root / "static/opsjobs.css"
    style.write_text(style.read_text() + "/* another colour */")
    assert find_stale(pictures, root) == sorted(names)


def test_no_picture_of_the_documentation_is_stale() -> None:
    """`make screenshot` takes them anew; with `ARGS="--only audit"` those whose names begin so."""
    assert find_stale(ROOT / "docs/_static") == []
