"""Lists the decisions on one page, and keeps them out of the navigation, which is drawn anew on each page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).parents[1] / "decisions"


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


def setup(app: Any) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("decisions", Decisions)
    app.connect("source-read", keep_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
