"""Writes texts and values of jobs as HTML, after the host's display policy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from markupsafe import Markup, escape

from ...core.display import LONGEST_VALUE, NO_PAYLOAD, Display, HiddenValue, JsonNumber
from ...core.visible_text import on_one_line, visible
from ...core.words import without_variables

# The marks that a policy may put in place of a secret inside a text.
_MARKED = re.compile(r"(\[hidden(?:: ?[^\[\]\n]{1,60})?\])")
_LOGGED = re.compile(r"(?P<at>[\d:.]+) (?P<rest>(?P<level>[A-Z]+) .*)")
_LEVELS = {"WARNING": "late", "ERROR": "failed", "CRITICAL": "failed"}
_LINE = 300
_SHORT = 100
_LONGEST_JSON = 20_000
_LONGEST_TEXT = 200_000
_DEEPEST = 40


class PageDisplay(Display):
    """The host's policy for one request, whose methods answer HTML."""

    def label(self, text: str | None) -> Markup:
        """A short text that is not payload, such as a tag or a reason of ours."""
        return Markup("") if text is None else mark_hidden(self.clean(text))

    def name(self, text: str | None) -> Markup:
        """A name from a job, such as a partition, on one line. Control characters are written out."""
        return Markup("") if text is None else mark_hidden(on_one_line(self.clean(text)))

    def text(self, text: str | None) -> Markup:
        """A text of the job; only its end when it is very long."""
        if text is None:
            return Markup("")
        if not self.may_see:
            return _hidden(NO_PAYLOAD)
        return mark_hidden(self.clean(text)[-_LONGEST_TEXT:])

    def log(self, text: str | None) -> Markup:
        """The log lines of an attempt, with warnings and errors highlighted."""
        if text is None or not self.may_see:
            return self.text(text)
        lines = self.clean(text)[-_LONGEST_TEXT:].split("\n")
        return Markup("\n").join(_log_line(line) for line in lines)

    def line(self, text: str | None) -> Markup:
        """The first line of a text of the job, shortened for a table."""
        return self._line(text, str)

    def kind(self, error: str | None) -> Markup:
        """The first line of an error without what differs between errors of its kind.

        Variable parts are left out after the policy has hidden what is secret, so that it knows the secret.
        """
        return self._line(error, without_variables)

    def _line(self, text: str | None, change: Callable[[str], str]) -> Markup:
        if text is None:
            return Markup("")
        if not self.may_see:
            return _hidden(NO_PAYLOAD)
        first = change(next(iter(self.start(text, LONGEST_VALUE).splitlines()), ""))
        return mark_hidden(first if len(first) <= _LINE else first[: _LINE - 1] + "…")

    def arguments(self, text: str, redacted: Collection[str] = ()) -> Markup:
        """The arguments of a job on a short line: `row=1187, price="12"`. `redacted` as in `json`."""
        if not self.may_see:
            return _hidden(NO_PAYLOAD)
        return mark_hidden(on_one_line(self.pairs(text, redacted, most=_SHORT)))

    def json(self, text: str | None, redacted: Collection[str] = ()) -> Markup:
        """A JSON text, indented. `redacted` are keys whose values are never stored."""
        if text is None:
            return Markup("")
        if not self.may_see:
            return _hidden(NO_PAYLOAD)
        try:
            value = self.load(text, redacted)
        except RecursionError:
            return _hidden("[not shown: nested too deeply]")
        return self._cut(self._write(value, 0))

    def _cut(self, pieces: Iterator[Markup]) -> Markup:
        """The pieces joined, up to a size. The policy is not asked about the rest."""
        kept: list[Markup] = []
        size = 0
        for piece in pieces:
            size += len(piece)
            if size > _LONGEST_JSON:
                kept.append(Markup("\n") + _hidden("[cut here: too long for a page]"))
                break
            kept.append(piece)
        return Markup("".join(kept))

    def _write(self, value: Any, depth: int) -> Iterator[Markup]:
        if isinstance(value, dict | list):
            yield from self._write_many(value, depth)
        elif isinstance(value, HiddenValue):
            yield _hidden(f"[{value.words}]")
        elif isinstance(value, JsonNumber):
            yield mark_hidden(self.start(value, LONGEST_VALUE))
        elif isinstance(value, str):
            yield mark_hidden(json.dumps(self.start(value, LONGEST_VALUE), ensure_ascii=False))
        else:
            yield escape(json.dumps(value))

    def _write_many(self, value: Any, depth: int) -> Iterator[Markup]:
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        if not value:
            yield Markup(opening + closing)
            return
        if depth == _DEEPEST:
            yield _hidden("[not shown: nested too deeply]")
            return
        for number, item in enumerate(value):
            start = "," if number else opening
            yield Markup(f"{start}\n{'  ' * (depth + 1)}")
            if isinstance(value, list):
                yield from self._write(item, depth + 1)
                continue
            key = self.start(item, LONGEST_VALUE)
            yield mark_hidden(json.dumps(key, ensure_ascii=False)) + Markup(": ")
            hidden = self.hides(item)
            if hidden is None or isinstance(value[item], HiddenValue):
                yield from self._write(value[item], depth + 1)
            else:
                yield _hidden(hidden)
        yield Markup(f"\n{'  ' * depth}{closing}")


def _hidden(words: str) -> Markup:
    return Markup('<span class="hid">{}</span>').format(visible(words))


def mark_hidden(text: str) -> Markup:
    """A text that has passed the policy as HTML: escaped, with the marks of hidden values highlighted."""
    seen = visible(text)
    if "[hidden" not in seen:
        return escape(seen)
    parts = _MARKED.split(seen)
    return Markup("").join(
        _hidden(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


def _log_line(line: str) -> Markup:
    found = _LOGGED.fullmatch(line)
    if found is None:
        return mark_hidden(line)
    rest = mark_hidden(found["rest"])
    if status := _LEVELS.get(found["level"]):
        rest = Markup('<span data-is="{}">{}</span>').format(status, rest)
    return Markup('<span class="at">{}</span> {}').format(found["at"], rest)
