"""Prints the package as a tree, each folder and module with the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "flask_opsjobs"


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring; empty when it has none."""
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    return re.split(r"(?<=[.!?])\s|\n\n", said, maxsplit=1)[0].replace("\n", " ")


def lines(folder: Path = PACKAGE, indent: str = "") -> Iterator[tuple[str, str]]:
    """Name and sentence of everything below `folder`: its modules first, then its folders."""
    init = folder / "__init__.py"
    yield f"{indent}{folder.name}/", first_sentence(init) if init.exists() else ""
    indent += "  "
    for module in sorted(folder.glob("*.py")):
        if module != init:
            yield f"{indent}{module.name}", first_sentence(module)
    statements = len(list(folder.glob("*.sql")))
    if statements:
        yield f"{indent}*.sql", f"{statements} statements, each with a header that explains it."
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        if any(below.glob("*.py")) or any(below.glob("*.sql")):
            yield from lines(below, indent)


def main() -> None:
    """Print it, sentences in one column."""
    tree = list(lines())
    width = max(len(name) for name, _ in tree) + 2
    print("\n".join(f"{name:<{width}}{sentence}".rstrip() for name, sentence in tree))


if __name__ == "__main__":
    main()
