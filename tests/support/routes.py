"""URL rules, compiled once for all apps of a run.

Werkzeug compiles each rule of an app to Python code: 0.02 s for our pages, and most tests make an app.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from werkzeug.routing import Rule

_compile = Rule._compile_builder
_compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}


def compile_once() -> None:
    """Let rules that are alike share their code; it knows of its rule only what the key has."""
    Rule._compile_builder = _compile_once


def _compile_once(rule: Rule, append_unknown: bool = True) -> Callable[..., Any]:
    assert rule.map is not None
    key = (
        rule.rule,
        rule.host if rule.map.host_matching else rule.subdomain,
        rule.map.host_matching,
        repr(rule.defaults),
        *(
            (name, type(each), repr([fact for fact in vars(each).items() if fact[0] != "map"]))
            for name, each in rule._converters.items()
        ),
        append_unknown,
    )
    if key not in _compiled:
        _compiled[key] = _compile(rule, append_unknown)
    return _compiled[key]
