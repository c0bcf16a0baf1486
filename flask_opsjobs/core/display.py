"""Passes all texts and values of jobs through the host's display policy. A policy that raises hides them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from ..policy import DisplayPolicy, raised
from .visible_text import on_one_line, visible

_log = logging.getLogger("flask_opsjobs")

FAILED = "[hidden: display policy failed]"
NO_PAYLOAD = "[hidden: needs payload.view]"
# The marks that a policy may put in place of a secret inside a text.
_MARKED = re.compile(r"(\[hidden(?:: ?[^\[\]\n]{1,60})?\])")
_LOGGED = re.compile(r"(?P<at>[\d:.]+) (?P<rest>(?P<level>[A-Z]+) .*)")
_LEVELS = {"WARNING": "late", "ERROR": "failed", "CRITICAL": "failed"}
_LINE = 300
_LONGEST_JSON = 20_000
_LONGEST_VALUE = 10_000
_LONGEST_TEXT = 200_000
_MARGIN = 4_000
_DEEPEST = 40


class _Number(str):
    """A JSON number as it was written, of any size. Keeping the text avoids converting it."""


class Display:
    """The host's policy for one request. `may_see` is whether the actor may see payload at all."""

    def __init__(self, policy: DisplayPolicy, *, may_see: bool) -> None:
        self.may_see = may_see
        self._policy = policy
        self._has_failed = False

    def label(self, text: str | None) -> Markup:
        """A short text that is not payload, such as a tag or a reason of ours."""
        return Markup("") if text is None else _mark(self.clean(text))

    def name(self, text: str | None) -> Markup:
        """A name from a job, such as a partition, on one line. Control characters are written out."""
        return Markup("") if text is None else _mark(on_one_line(self.clean(text)))

    def text(self, text: str | None) -> Markup:
        """A text of the job; only its end when it is very long."""
        if text is None:
            return Markup("")
        if not self.may_see:
            return _hidden(NO_PAYLOAD)
        return _mark(self.clean(text)[-_LONGEST_TEXT:])

    def log(self, text: str | None) -> Markup:
        """The log lines of an attempt, with warnings and errors highlighted."""
        if text is None or not self.may_see:
            return self.text(text)
        lines = self.clean(text)[-_LONGEST_TEXT:].split("\n")
        return Markup("\n").join(_log_line(line) for line in lines)

    def line(self, text: str | None) -> Markup:
        """The first line of a text of the job, shortened for a table."""
        if text is None:
            return Markup("")
        if not self.may_see:
            return _hidden(NO_PAYLOAD)
        first = next(iter(self.start(text, _LONGEST_VALUE).splitlines()), "")
        return _mark(first if len(first) <= _LINE else first[: _LINE - 1] + "…")

    def json(self, text: str | None, redacted: Collection[str] = ()) -> Markup:
        """A JSON text, indented. `redacted` are keys whose values are never stored."""
        if text is None:
            return Markup("")
        if not self.may_see:
            return _hidden(NO_PAYLOAD)
        try:
            value = self._load(text, redacted)
        except RecursionError:
            return _hidden("[not shown: nested too deeply]")
        return self._cut(self._write(value, 0))

    @staticmethod
    def _load(text: str, redacted: Collection[str]) -> Any:
        value = json.loads(text, parse_int=_Number, parse_float=_Number)
        if isinstance(value, dict):
            # A job enqueued before the parameter was declared `redact` may still have its value.
            value |= {
                key: _Instead(f"{'hidden' if key in value else 'not stored'}: redact")
                for key in redacted
            }
        return value

    def plain(self, text: str, redacted: Collection[str] = (), *, most: int | None = None) -> str:
        """The same as JSON on one line, with notes in place of hidden values; complete, as exports need it.

        With `most` only that many characters from the beginning; the policy is not asked about the rest.
        """
        kept: list[str] = []
        size = 0
        try:
            for piece in self._pieces(self._load(text, redacted), most):
                kept.append(piece)
                size += len(piece)
                if most is not None and size > most:
                    return "".join(kept)[: most - 1] + "…"
        except RecursionError:
            return json.dumps("[not shown: nested too deeply]")
        return "".join(kept)

    def _pieces(self, value: Any, most: int | None) -> Iterator[str]:
        if isinstance(value, dict):
            for number, (key, one) in enumerate(value.items()):
                yield f"{', ' if number else '{'}{json.dumps(self.clean(key))}: "
                hidden = None if isinstance(one, _Instead) else self.hides(key)
                if hidden is None:
                    yield from self._pieces(one, most)
                else:
                    yield json.dumps(hidden, ensure_ascii=False)
            yield "}" if value else "{}"
        elif isinstance(value, list):
            for number, one in enumerate(value):
                yield ", " if number else "["
                yield from self._pieces(one, most)
            yield "]" if value else "[]"
        elif isinstance(value, _Instead):
            yield json.dumps(f"[{value.words}]")
        elif isinstance(value, str):
            shown = self.clean(value) if most is None else self.start(value, most)
            is_number = isinstance(value, _Number) and shown == value
            yield shown if is_number else json.dumps(shown, ensure_ascii=False)
        else:
            yield json.dumps(value)

    def start(self, text: str, most: int) -> str:
        """The beginning of a text as it may be shown, at most `most` characters. The rest is not cleaned.

        A margin beyond `most` is cleaned too: the policy cannot recognize half a secret, so the cut must
        lie behind the last character shown.
        """
        is_cut = len(text) > most + _MARGIN
        cleaned = self.clean(text[: most + _MARGIN] if is_cut else text)
        if is_cut and not cleaned.endswith(
            "]"
        ):  # a mark at the end replaces the secret that was cut
            cleaned = cleaned[:-_MARGIN]
        return f"{cleaned[: most - 1]}…" if is_cut or len(cleaned) > most else cleaned

    def clean(self, text: str) -> str:
        """The text after the policy's `clean_text`. A policy that raises hides all of it."""
        try:
            cleaned = self._policy.clean_text(text)
            if isinstance(cleaned, str):
                cleaned.encode()  # a lone surrogate would fail later, and break the whole page
                return cleaned
            raise TypeError(f"clean_text returned {type(cleaned).__name__}, not str")
        except Exception as error:
            self._note_failure(error)
            return FAILED

    def hides(self, key: str) -> str | None:
        """The note to show in place of the value under `key`; None when the value may be shown."""
        try:
            return f"[hidden: key {self.clean(key)}]" if self._policy.is_hidden_key(key) else None
        except Exception as error:
            self._note_failure(error)
            return FAILED

    def _note_failure(self, error: Exception) -> None:
        if not self._has_failed:  # log once per page
            message = "the display policy raised: what it was asked about is hidden (%s)"
            _log.error(message, raised(error))
        self._has_failed = True

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
        elif isinstance(value, _Instead):
            yield _hidden(f"[{value.words}]")
        elif isinstance(value, _Number):
            yield _mark(self.start(value, _LONGEST_VALUE))
        elif isinstance(value, str):
            yield _mark(json.dumps(self.start(value, _LONGEST_VALUE), ensure_ascii=False))
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
            key = self.start(item, _LONGEST_VALUE)
            yield _mark(json.dumps(key, ensure_ascii=False)) + Markup(": ")
            hidden = self.hides(item)
            if hidden is None or isinstance(value[item], _Instead):
                yield from self._write(value[item], depth + 1)
            else:
                yield _hidden(hidden)
        yield Markup(f"\n{'  ' * depth}{closing}")


@dataclass(frozen=True)
class _Instead:
    """Replaces the value of a redacted parameter."""

    words: str


def _hidden(words: str) -> Markup:
    return Markup('<span class="hid">{}</span>').format(visible(words))


def _mark(text: str) -> Markup:
    """The text escaped, with the marks of hidden values highlighted."""
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
        return _mark(line)
    rest = _mark(found["rest"])
    if status := _LEVELS.get(found["level"]):
        rest = Markup('<span data-is="{}">{}</span>').format(status, rest)
    return Markup('<span class="at">{}</span> {}').format(found["at"], rest)
