"""Makes once for all apps of a run what is alike in them: most tests make an app.

Werkzeug compiles each rule of an app to patterns and to Python code, 0.03 s for our pages. Jinja compiles
each template that is shown to Python code, over a second for all of ours, in each process. SQLAlchemy
compiles each statement to SQL once for each engine. Pydantic makes a schema of the types of each task's
arguments, and every app has a task of ours. For the first connection of each engine SQLAlchemy asks the
server six things. Each app looks for the packages of the bridge to RQ, and redis-py reads its own version
from its package for each connection.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

import redis.utils
from flask import Flask
from jinja2 import FileSystemBytecodeCache
from sqlalchemy import Connection, Engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.util import LRUCache
from werkzeug.routing import Map, Rule

from flask_opsjobs import _extension
from flask_opsjobs.bridge import status
from flask_opsjobs.jobs.record import signature
from flask_opsjobs.web.app import pages

# Where the processes of a run keep compiled templates, for each other.
_TEMPLATES = "OPSJOBS_TEST_TEMPLATES"

_compile = Rule.compile
_compiled: dict[tuple[Any, ...], dict[str, Any]] = {}
# What `Rule.compile` makes: values that nobody changes later, and methods.
_VALUES = ("_parts", "_trace", "_converters")
_METHODS = ("_build", "_build_unknown")

# Functions whose answers are alike in a run.
_ALIKE = (
    (_extension, "make_blueprint"),
    (_extension, "make_bridge_blueprint"),
    (status, "_find_version"),
    (status, "find_spec"),
    (redis.utils, "get_lib_version"),
)

_make_schema = signature._core_schema
_schemas: dict[tuple[tuple[str, Any], ...], Any] = {}

_initialize = PGDialect_psycopg.initialize
# What a dialect has found out about a server, by the server's place.
_found: dict[tuple[str, int], dict[str, Any]] = {}

_statements: LRUCache[Any, Any] = LRUCache(5_000)
# What a dialect is told, or finds out from the server. Its other values belong to one engine.
_PLAIN = (bool, int, str, tuple, frozenset, type(None))


def compile_once() -> None:
    """Let apps share what is made of pages, rules, templates, statements and types that are alike."""
    setattr(Rule, "compile", _compile_once)  # noqa: B010
    setattr(signature, "_core_schema", _make_schema_once)  # noqa: B010
    for module, name in _ALIKE:
        setattr(module, name, functools.cache(getattr(module, name)))
    templates = FileSystemBytecodeCache(_folder_of_templates())
    Flask.jinja_options = {**Flask.jinja_options, "bytecode_cache": templates}
    pages._environment().bytecode_cache = templates
    setattr(PGDialect_psycopg, "initialize", _initialize_once)  # noqa: B010
    setattr(PGDialect_psycopg, "engine_created", classmethod(_share_statements))  # noqa: B010
    # SQLAlchemy looks for a compiled statement by its dialect too.
    setattr(PGDialect_psycopg, "__eq__", _is_alike)  # noqa: B010
    setattr(PGDialect_psycopg, "__hash__", lambda dialect: hash(type(dialect)))  # noqa: B010


class App(Flask):
    """An app that adds the pages of its blueprints when it is first asked for its URLs: few tests ask."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._later: list[Callable[[], None]] = []
        self._adding = threading.RLock()
        super().__init__(*args, **options)

    def register_blueprint(self, blueprint: Any, **options: Any) -> None:
        self._later.append(functools.partial(super().register_blueprint, blueprint, **options))

    # Flask reads and writes it as an attribute.
    @property
    def url_map(self) -> Map:
        with self._adding:
            while self._later:
                self._later.pop(0)()
        return self._map

    @url_map.setter
    def url_map(self, made: Map) -> None:
        self._map = made


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


def _make_schema_once(fields: Mapping[str, Any]) -> Any:
    key = tuple(fields.items())
    try:
        if key not in _schemas:
            _schemas[key] = _make_schema(fields)
    except TypeError:
        # An annotation that has no hash.
        return _make_schema(fields)
    return _schemas[key]


def _folder_of_templates() -> str:
    """The folder of this run, which the first of its processes makes, and removes when it ends."""
    if _TEMPLATES not in os.environ:
        os.environ[_TEMPLATES] = tempfile.mkdtemp(prefix="opt-")
        atexit.register(_remove_templates, os.getpid())
    return os.environ[_TEMPLATES]


def _remove_templates(pid: int) -> None:
    # A fork of that process has the same list of what to do at its end.
    if os.getpid() == pid:
        shutil.rmtree(os.environ[_TEMPLATES], ignore_errors=True)


def _initialize_once(dialect: PGDialect_psycopg, connection: Connection) -> None:
    server = connection.connection.dbapi_connection.info
    place = (server.host, server.port)
    if place in _found:
        vars(dialect).update(_found[place])
        return
    before = {**vars(dialect)}
    _initialize(dialect, connection)
    if not dialect._has_native_hstore:
        _found[place] = {
            name: each
            for name, each in vars(dialect).items()
            if name not in before and isinstance(each, _PLAIN)
        }


def _share_statements(_dialect: type[Any], engine: Engine) -> None:
    if engine._compiled_cache is not None:
        engine._compiled_cache = _statements


def _is_alike(one: PGDialect_psycopg, other: object) -> bool:
    return one is other or (type(one) is type(other) and _traits(one) == _traits(other))


def _traits(dialect: Any) -> dict[str, Any]:
    """What decides how a dialect writes a statement; from its first connection on it stays the same."""
    values = vars(dialect)
    if "_traits" not in values:
        traits = {name: each for name, each in values.items() if isinstance(each, _PLAIN)}
        for name in ("_json_serializer", "_json_deserializer"):
            traits[name] = getattr(dialect, name)
        dialect._traits = traits
    return dialect._traits
