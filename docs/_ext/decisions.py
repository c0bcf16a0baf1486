"""Lists the decisions on one page, and keeps them out of the navigation, which is drawn anew on each page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).parents[1] / "decisions"
# The theme's function, of the first decision that is written.
_drawn: dict[str, Any] = {}


class Decisions(SphinxDirective):
    """Lists each decision by its title, with a link."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        lines = []
        for path in sorted(FOLDER.glob("0*.md")):
            title = path.read_text().partition("\n")[0].removeprefix("# ")
            number, _, words = title.partition(". ")
            lines.append(f"- {number}: [{words}]({path.name})")
        return self.parse_text_to_nodes("\n".join(lines))


def keep_out(_app: Any, page: str, source: list[str]) -> None:
    """Say of a decision that no table of contents has it."""
    if page.startswith("decisions/0"):
        source[0] = f"---\norphan: true\n---\n{source[0]}"


def share_contents(_app: Any, page: str, _template: str, context: Any, _tree: Any) -> None:
    """Let the theme draw the table of contents once for all decisions: none of them is in it."""
    if page.startswith("decisions/0"):
        context["toctree"] = _drawn.setdefault("toctree", cache(context["toctree"]))


def setup(app: Any) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("decisions", Decisions)
    app.connect("source-read", keep_out)
    # Before the theme, which draws it.
    app.connect("html-page-context", share_contents, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
