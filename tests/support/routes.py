"""Compiles each URL rule once for all apps of a run.

Werkzeug compiles each rule of an app to patterns and to Python code: 0.03 s for our pages, and most tests make an app.
"""

from __future__ import annotations

from typing import Any

from werkzeug.routing import Rule

_compile = Rule.compile
_compiled: dict[tuple[Any, ...], dict[str, Any]] = {}
# What `Rule.compile` makes: values that nobody changes later, and methods.
_VALUES = ("_parts", "_trace", "_converters")
_METHODS = ("_build", "_build_unknown")


def compile_once() -> None:
    """Let rules that are alike share what is made of them."""
    setattr(Rule, "compile", _compile_once)  # noqa: B010


def _compile_once(rule: Rule) -> None:
    key = (
        rule.rule,
        rule.host if rule.map.host_matching else rule.subdomain,
        rule.map.host_matching,
        rule.merge_slashes,
        repr(rule.defaults),
        *rule.map.converters.items(),
    )
    made = _compiled.get(key)
    if made is None:
        _compile(rule)
        values = {name: getattr(rule, name) for name in _VALUES}
        methods = {name: getattr(rule, name).__func__ for name in _METHODS}
        _compiled[key] = {"values": values, "methods": methods}
        return
    vars(rule).update(made["values"])
    for name, function in made["methods"].items():
        setattr(rule, name, function.__get__(rule))
    rule.arguments.update(rule._converters)
