"""Compiles each URL rule and each template once for all apps of a run; most tests make an app.

Werkzeug compiles each rule of an app to patterns and to Python code, 0.03 s for our pages. Jinja compiles
each template that an app shows to Python code, 0.1 s for a page.
"""

from __future__ import annotations

from types import CodeType
from typing import Any

from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from werkzeug.routing import Rule

_compile = Rule.compile
_compiled: dict[tuple[Any, ...], dict[str, Any]] = {}
# What `Rule.compile` makes: values that nobody changes later, and methods.
_VALUES = ("_parts", "_trace", "_converters")
_METHODS = ("_build", "_build_unknown")


def compile_once() -> None:
    """Let apps share what is made of rules and of templates that are alike."""
    setattr(Rule, "compile", _compile_once)  # noqa: B010
    Flask.jinja_options = {**Flask.jinja_options, "bytecode_cache": _Templates()}


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


class _Templates(BytecodeCache):
    """Keeps compiled templates in memory, by their names and by what they say."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._codes[bucket.key, bucket.checksum] = bucket.code
