"""Passes texts and values of jobs through the host's display policy. A policy that raises hides them.

`web/app/display.py` writes them as HTML.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..policy import DisplayPolicy, describe_failure

_log = logging.getLogger("flask_opsjobs")

FAILED = "[hidden: display policy failed]"
NO_PAYLOAD = "[hidden: needs payload.view]"
LONGEST_VALUE = 10_000
_MARGIN = 4_000
# A page writes the name of a task or a step several times: so many short texts are cleaned once each.
_KEPT, _LONGEST_KEPT = 1_000, 200


class JsonNumber(str):
    """A JSON number of any size, kept as it was written, because a conversion may change it."""


@dataclass(frozen=True)
class HiddenValue:
    """Replaces the value of a redacted parameter."""

    words: str


class Display:
    """The host's policy for one request. `may_see` is whether the actor may see payload at all."""

    def __init__(self, policy: DisplayPolicy, *, may_see: bool) -> None:
        self.may_see = may_see
        self._policy = policy
        self._clean_short = lru_cache(_KEPT)(policy.clean_text)
        self._has_failed = False

    @staticmethod
    def load(text: str, redacted: Collection[str]) -> Any:
        """The value of a JSON text. `redacted` are keys whose values are never stored."""
        value = json.loads(text, parse_int=JsonNumber, parse_float=JsonNumber)
        if isinstance(value, dict):
            # A job enqueued before the parameter was declared `redact` may still have its value.
            value |= {
                key: HiddenValue(f"{'hidden' if key in value else 'not stored'}: redact")
                for key in redacted
            }
        return value

    def plain(self, text: str, redacted: Collection[str] = (), *, most: int | None = None) -> str:
        """A JSON text on one line, with notes in place of hidden values; complete, as exports need it.

        With `most`, returns at most that many characters from the beginning, and does not ask the policy
        about the rest.
        """
        kept: list[str] = []
        size = 0
        try:
            for piece in self._pieces(self.load(text, redacted), most):
                kept.append(piece)
                size += len(piece)
                if most is not None and size > most:
                    return "".join(kept)[: most - 1] + "…"
        except RecursionError:
            return json.dumps("[not shown: nested too deeply]")
        return "".join(kept)

    def pairs(self, text: str, redacted: Collection[str] = (), *, most: int) -> str:
        """A JSON object as `key=value, key=value`, at most `most` characters, as `plain` writes it."""
        line = ""
        try:
            for key, value in self.load(text, redacted).items():
                hidden = f"[{value.words}]" if isinstance(value, HiddenValue) else self.hides(key)
                shown = "".join(self._pieces(value, most)) if hidden is None else hidden
                line += f"{', ' if line else ''}{self.clean(key)}={shown}"
                if len(line) > most:
                    return f"{line[: most - 1]}…"
        except RecursionError:
            return "[not shown: nested too deeply]"
        return line

    def _pieces(self, value: Any, most: int | None) -> Iterator[str]:
        if isinstance(value, dict):
            for number, (key, one) in enumerate(value.items()):
                yield f"{', ' if number else '{'}{json.dumps(self.clean(key))}: "
                hidden = None if isinstance(one, HiddenValue) else self.hides(key)
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
        elif isinstance(value, HiddenValue):
            yield json.dumps(f"[{value.words}]")
        elif isinstance(value, str):
            shown = self.clean(value) if most is None else self.start(value, most)
            is_number = isinstance(value, JsonNumber) and shown == value
            yield shown if is_number else json.dumps(shown, ensure_ascii=False)
        else:
            yield json.dumps(value)

    def start(self, text: str, most: int) -> str:
        """The beginning of a text as it may be shown, at most `most` characters. The rest is not cleaned.

        The policy cannot recognize half a secret. So the text is cut a margin behind the last character
        shown, and the margin is cleaned too.
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
            is_short = len(text) <= _LONGEST_KEPT
            cleaned = self._clean_short(text) if is_short else self._policy.clean_text(text)
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
            _log.error(message, describe_failure(error))
        self._has_failed = True
