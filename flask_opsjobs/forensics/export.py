"""Writes a bundle as a file: Markdown, HTML or JSON. Equal bundles make equal files, to the byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .bundle import Bundle
from .html import write_bundle_html
from .json import write_bundle_json
from .markdown import write_bundle_markdown


@dataclass(frozen=True)
class Format:
    """One format: what people call it, its MIME type, and what writes it.

    `write` gets a bundle whose texts have passed the display policy, its reader and the environment.
    """

    title: str
    mimetype: str
    write: Callable[[Bundle, str, str], bytes]


# By the end of a file's name.
FORMATS: Mapping[str, Format] = {
    "md": Format("Markdown", "text/markdown", write_bundle_markdown),
    "html": Format("HTML", "text/html", write_bundle_html),
    "json": Format("JSON", "application/json", write_bundle_json),
}


def make_file_name(bundle: Bundle, format_: str) -> str:
    """A plain name for the file, with its subject and its time."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", bundle.title.lower())[:80].strip("-.")
    return f"opsjobs-forensics-{name}-{bundle.read_at.strftime('%Y%m%dT%H%M%SZ')}.{format_}"
