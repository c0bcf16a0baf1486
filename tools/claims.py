"""Prints the sentences of README and docs that claim much, for a person to judge: `make claims`.

A sentence with such a word may be true. It is listed when nothing in it limits what it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What promises something to people who use the package.
PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "UPGRADING.md", "docs/support.toml")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
_CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
# A paragraph, an entry of a list, a row of a table.
_PARTS = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*|#]|\d+\. ))")
_SENTENCE = re.compile(r"(?<=[.!?:])\s+(?=[A-Z*])")
# A function cannot be run exactly once; to count or to change a state exactly once is something else.
_EXECUTION = re.compile(r"\b(?:run|ran|runs|running|execut\w*|perform\w*|deliver\w*|function)\b")
_LIMITED = re.compile(
    r"\b(?:no|not|cannot|nobody|nothing|unless|except|only|while|until|when|if|may|unsupported)\b",
    re.IGNORECASE,
)
_WORDS = {
    "exactly once": re.compile(r"\bexactly[ -]once\b", re.IGNORECASE),
    "never": re.compile(r"\bnever\b", re.IGNORECASE),
    "guarantees": re.compile(r"\bguarantee(?:s|d)?\b", re.IGNORECASE),
    "always": re.compile(r"\balways\b", re.IGNORECASE),
}


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Each sentence of a page outside of code, on one line, with the number of the line of its paragraph."""
    text = _CODE.sub(lambda code: "\n" * code[0].count("\n") or "…", text)
    line = 1
    start = 0
    for end in [*(found.start() for found in _PARTS.finditer(text)), len(text)]:
        part = text[start:end]
        begins = line + len(part) - len(part.lstrip("\n"))
        for sentence in _SENTENCE.split(" ".join(part.split())):
            if sentence:
                yield begins, sentence
        line += part.count("\n")
        start = end


def claims(text: str) -> Iterator[tuple[int, str, str]]:
    """The sentences that claim much and limit nothing: the line, the word, the sentence."""
    for line, sentence in sentences(text):
        for word, pattern in _WORDS.items():
            if not pattern.search(sentence) or _LIMITED.search(pattern.sub("", sentence)):
                continue
            if word != "exactly once" or _EXECUTION.search(sentence):
                yield line, word, sentence


def main() -> None:
    """Print those of all pages."""
    for page in PAGES:
        for line, word, sentence in claims(page.read_text()):
            print(f"{page.relative_to(ROOT)}:{line}: {word}: {sentence}")


if __name__ == "__main__":
    main()
