"""`make claims` lists what pages claim without a limit; no page claims that a function runs exactly once."""

from __future__ import annotations

import pytest

from tools.claims import PAGES, claims


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# Jobs\n\nEach job runs\nexactly once.", ["exactly once"]),
        (
            "| what | how |\n| --- | --- |\n| a function | is executed exactly-once |",
            ["exactly once"],
        ),
        ("- It counts.\n- It guarantees delivery. It never loses a job.", ["guarantees", "never"]),
        ("Workers always answer.", ["always"]),
        ("Each minute is counted exactly once.", []),
        ("No job queue can run a function exactly once.", []),
        ("A job never runs again while its row is locked.", []),
        ("It is `never` used.\n\n```text\nexactly once a function runs\n```\n", []),
    ],
)
def test_a_claim_without_a_limit_is_listed(text: str, words: list[str]) -> None:
    assert [word for _, word, _ in claims(text)] == words


def test_it_names_the_line_of_the_paragraph() -> None:
    text = "# Jobs\n\nFirst.\n\n```text\na\nb\n```\n\nA job never ends.\n"
    assert list(claims(text)) == [(10, "never", "A job never ends.")]


def test_no_page_says_that_a_function_runs_exactly_once() -> None:
    found = [
        f"{page.name}:{line}: {sentence}"
        for page in PAGES
        for line, word, sentence in claims(page.read_text())
        if word == "exactly once"
    ]
    assert found == []
