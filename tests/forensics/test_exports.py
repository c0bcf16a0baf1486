"""What an export says, that nothing in it is markup of somebody else, and that its last line proves it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

from flask_opsjobs.forensics.bundle import History
from flask_opsjobs.forensics.export import FORMATS, make_file_name
from flask_opsjobs.forensics.html import style_source
from tests.forensics.bundles import make_bundle

REPORTS = ("md", "html")
SECTIONS = [
    "Summary",
    "Impact",
    "Timeline",
    "What is not known",
    "Decisions",
    "What may be done next",
]
# Each is markup somewhere: at the begin of a line, in it, or over several lines.
MARKUP = [
    "<img src=x onerror=alert(1)>",
    "</main></body><script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "<https://evil.example>",
    "https://evil.example www.evil.example me@evil.example",
    "# heading",
    "## heading\n# heading\n\n---\n\n- a\n- b",
    "1. one",
    "2) two",
    "---",
    "===",
    "> quote",
    "    indented code",
    "```\ncode\n```",
    "~~~\ncode",
    "`code` ``code``",
    "**bold** __bold__ *em* _em_ ~~gone~~",
    "a | b | c",
    "| --- | --- |",
    "&lt;img&gt; &#x3c;",
    "\\<b> \\` trailing \\",
    "[label]: https://evil.example",
    "$$x$$ $y$",
    "\u202edrawkcab\u202c \x1b[31m \u2028 next",
    "x" * 80,
    "",
]


def write(format: str, text: str = "mail", **values: Any) -> str:
    return FORMATS[format].write(make_bundle(text, **values), "ops-demo", "production").decode()


def md(text: str) -> BeautifulSoup:
    """The Markdown as the readers of Markdown show it, with tables, links and raw HTML."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return BeautifulSoup(reader.render(text), "lxml")


def shape(tree: BeautifulSoup) -> list[str]:
    """The names of all elements, in order."""
    return [element.name for element in tree.find_all(True)]


@pytest.mark.parametrize("format", REPORTS)
def test_it_is_the_skeleton_of_a_post_mortem(format: str) -> None:
    text = write(format)
    tree = md(text) if format == "md" else BeautifulSoup(text, "lxml")
    assert [heading.text for heading in tree.select("h1")] == ["Job 84211 mail, forensics"]
    assert [heading.text for heading in tree.select("h2")] == SECTIONS
    words = " ".join(tree.text.split())
    for said in (
        "Read by ops-demo at 2026-11-25 14:02:10 UTC, environment production.",
        "It runs out of memory, says mail.",
        "State: started Completeness: partial evidence",
        "Span: 2026-11-25 13:40:10 UTC to 2026-11-25 14:02:10 UTC",
        "Where its delivery was mail, 2026-11-25 13:41:10 UTC to 2026-11-25 13:42:10 UTC",
        "mail, until 2026-11-25 13:22:10 UTC (removed)",
        "Nobody watched until now. mail",
        "Nobody watched until 2026-11-25 13:42:40 UTC. mail",
        "2026-11-25 13:40:40 to 2026-11-25 13:41:10",
        "Not shown: 1,200 more mail before 2026-11-25 13:40:10 UTC.",
        "mail (OpsJobs-native). mail",
        "mail (RQ bridge, inspection only). mail Not possible now: mail.",
        "mail (host-owned follow-up, unconfigured). mail",
        "mail (host-owned follow-up, invoked). mail https://tickets.example/OPS-2294",
        "Runbook: mail https://wiki.example/poison",
        "met: mail missing: mail unknown: mail Caution: mail",
        "To write: Who was affected",
    ):
        assert said in words, said
    (decisions,) = [table for table in tree.select("table") if "Reason" in table.text]
    assert [cell.text for cell in decisions.select("tbody td")] == [
        "2026-11-25 13:50:10",
        "mail",
        "mail",
        "5127",
    ]
    attempts = tree.select("table")[0].select("tbody tr")
    assert [cell.text for cell in attempts[0].select("td")] == [
        "1,203",
        "2026-11-25 13:43:10",
        "19.2 s",
        "1.91 GB",
        "mail",
        "mail",
    ]
    assert [cell.text for cell in attempts[1].select("td")][2:4] == ["–", "–"]


@pytest.mark.parametrize("format", REPORTS)
@pytest.mark.parametrize("text", MARKUP)
def test_nothing_that_it_quotes_is_markup(format: str, text: str) -> None:
    plain, made = write(format, "mail"), write(format, text)
    read = md if format == "md" else (lambda file: BeautifulSoup(file, "lxml"))
    tree = read(made)
    # An empty text leaves elements out, and nothing adds one.
    assert not (tree.find_all(["img", "script", "pre", "del"]))
    if text:
        assert shape(tree) == shape(read(plain))
    allowed = {"https://tickets.example/OPS-2294", "https://wiki.example/poison"}
    assert {str(link["href"]) for link in tree.select("a")} == allowed
    if text.isprintable():
        seen = " ".join(text.split())
        assert " ".join(tree.text.split()).count(seen) >= 20
    assert not set("\u202e\u202c\x1b\u2028") & set(made)


@pytest.mark.parametrize("format", REPORTS)
def test_its_last_line_is_the_hash_of_all_lines_above(format: str) -> None:
    *above, last = write(format).splitlines(keepends=True)
    digest = hashlib.sha256("".join(above).encode()).hexdigest()
    assert digest in last
    assert "SHA-256 of all lines above" in last


@pytest.mark.parametrize("format", FORMATS)
def test_equal_bundles_make_equal_files_and_any_change_another_hash(format: str) -> None:
    assert write(format) == write(format)
    files = {
        write(format),
        write(format, "post"),
        write(format, state="failed"),
        FORMATS[format].write(make_bundle(), "k.lind", "production").decode(),
    }
    assert len({re.findall(r"[0-9a-f]{64}", file)[-1] for file in files}) == len(files)


def test_the_html_file_asks_for_nothing_and_runs_nothing() -> None:
    tree = BeautifulSoup(write("html", "<img src=x>"), "lxml")
    assert not tree.find_all(["script", "link", "img", "iframe", "object", "form", "base"])
    assert not [
        (element.name, name)
        for element in tree.find_all(True)
        for name in element.attrs
        if name.startswith("on") or name in ("style", "src", "srcset", "action")
    ]
    (style,) = tree.find_all("style")
    assert "url(" not in style.text
    assert "@import" not in style.text
    policy = tree.select_one("meta[http-equiv=Content-Security-Policy]")["content"]
    assert policy == f"default-src 'none'; style-src '{style_source()}'; base-uri 'none'"
    assert len(tree.select("tr.blind")) == 2
    assert len(tree.select("tr.deploy, tr.operation")) == 2
    assert all(header.get("scope") for header in tree.select("th"))
    assert all(table.caption.text for table in tree.select("table"))


@pytest.mark.parametrize("format", REPORTS)
def test_a_bundle_of_nothing(format: str) -> None:
    empty: dict[str, Any] = dict.fromkeys(("lacking", "evidence", "related", "paths"), ())
    text = write(
        format,
        completeness="unknown",
        state=None,
        quote=None,
        since=None,
        until=None,
        timeline=History(),
        runbook=None,
        **empty,
    )
    assert "Nothing is stored" in text
    assert "cannot be said what lacks" in text
    assert "has no decision" in text
    whole = write(format, completeness="complete", lacking=())
    assert "all that should be recorded of this time is recorded" in whole


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Job 84211", "job-84211"),
        ("Queue ../../etc/passwd", "queue-..-..-etc-passwd"),
        ('Task a"b\r\nc', "task-a-b-c"),
        ("Queue " + "x" * 200, "queue-" + "x" * 74),
        ("Queue ü", "queue"),
    ],
)
def test_its_name_is_a_plain_file_name(title: str, name: str) -> None:
    assert (
        make_file_name(make_bundle(title=title), "md")
        == f"opsjobs-forensics-{name}-20261125T140210Z.md"
    )
