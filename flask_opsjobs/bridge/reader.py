"""Runs a private copy of rq-dashboard's views, and returns what they answer as JSON.

The copy has its own module name, so a host that mounts rq-dashboard itself is not touched. It runs in a small
Flask app for each Redis, which is called as WSGI: rq-dashboard keeps its connection on the app.
"""

from __future__ import annotations

import contextvars
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

from flask import Flask, request
from redis import Redis, RedisError
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoAnswer
from rq.exceptions import NoSuchJobError
from typing_extensions import override
from werkzeug.routing import UnicodeConverter
from werkzeug.wrappers import Response

from ..engine.adopted.pickle_view import Hides
from ..engine.redis.connections import WriteRefused, redis_name_of
from .instances import Instance
from .repairs import (
    HIDES,
    REDIS,
    BridgeJob,
    BridgeQueue,
    BridgeWorker,
    RqJobFacts,
    ShowingSerializer,
    count_and_list_jobs,
    count_jobs,
    read_more,
)

# In the package of rq-dashboard, so that its relative imports work.
_MODULE = "rq_dashboard.opsjobs_bridge"
_ERRORS = "opsjobs.errors"
# rq-dashboard looks its Redis up by number, in a list that here has no addresses.
_MOST_INSTANCES = 1_000
_lock = threading.Lock()


class RedisSilent(Exception):
    """Redis did not answer."""


class NotInRq(LookupError):
    """RQ has no job of this id."""


class UnreadableInRq(ValueError):
    """RQ's record of a job cannot be read."""


def ask(
    instance: Instance, endpoint: str, values: Mapping[str, Any], root: str, hides: Hides
) -> dict[str, Any]:
    """What a JSON view of rq-dashboard answers. Raises `RedisSilent`, `NotInRq` or `UnreadableInRq`.

    `root` is the address below which its links are. `hides` is called in the caller's context.
    """
    app = _app_of(redis_name_of(instance.redis))
    path = app.url_map.bind("localhost").build(
        f"rq_dashboard.{endpoint}", {"instance_number": instance.number, **values}
    )
    context = contextvars.copy_context()
    errors: list[Exception] = []
    environ = {
        **_request_for(path, root),
        REDIS: instance.redis,
        HIDES: lambda key: context.run(hides, key),
        _ERRORS: errors,
    }
    answer = Response.from_app(app.wsgi_app, environ)
    with _read_errors():
        if errors:
            raise errors[0]
    found: dict[str, Any] = json.loads(answer.get_data())
    return found


def count_by_registry(instance: Instance, queue: str) -> dict[str, int]:
    """How many jobs each registry of a queue has. Raises `RedisSilent`."""
    with _read_errors():
        return count_jobs(queue, instance.redis)


def find_more(instance: Instance, rq_id: str, hides: Hides) -> RqJobFacts:
    """What rq-dashboard leaves out of a job. Raises `RedisSilent` or `UnreadableInRq`."""
    with _read_errors():
        return read_more(instance.redis, rq_id, hides)


@contextmanager
def _read_errors() -> Iterator[None]:
    """A block whose errors of RQ and Redis become ours. Their messages may quote the record, and are lost."""
    try:
        yield
    except (NoConnection, NoAnswer):
        raise RedisSilent from None
    except NoSuchJobError:
        raise NotInRq from None
    except WriteRefused:
        raise  # a fault of ours, which says the command
    except (RedisError, ValueError, TypeError, KeyError, RuntimeError):
        raise UnreadableInRq from None


class _AnyText(UnicodeConverter):
    """A part of an address that may have a slash, as the name of a queue may. `PATH_INFO` has it quoted."""

    @override
    def to_python(self, value: str) -> str:
        return unquote(value)

    @override
    def to_url(self, value: str) -> str:
        return quote(value, safe="")


@lru_cache(64)
def _app_of(_redis: str) -> Flask:
    """The small app for one Redis, named by `redis_name_of`."""
    app = Flask(_module().__name__, static_folder=None)
    app.config["RQ_DASHBOARD_REDIS_URL"] = ("",) * _MOST_INSTANCES
    app.url_map.converters["default"] = _AnyText
    app.register_blueprint(_module().blueprint)
    # An error that is handled here reaches no receiver of Flask's signals, such as an error tracker.
    app.register_error_handler(Exception, _keep_error)
    return app


def _keep_error(error: Exception) -> tuple[str, int]:
    request.environ[_ERRORS].append(error)
    return "", 500


def _module() -> ModuleType:
    with _lock:
        return sys.modules.get(_MODULE) or _load()


def _load() -> ModuleType:
    package = find_spec("rq_dashboard")
    assert package is not None
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / "web.py"
    spec = spec_from_file_location(_MODULE, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # Flask looks for the blueprint's folder there while the module is executed.
    sys.modules[_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_MODULE]
        raise
    replaced: dict[str, Any] = {
        "Job": BridgeJob,
        "Queue": BridgeQueue,
        "Worker": BridgeWorker,
        "get_queue_registry_jobs_count": count_and_list_jobs,
        "from_url": lambda *_, **__: (None, _redis_of_request()),
    }
    for name, repaired in replaced.items():
        if not hasattr(module, name):
            raise AttributeError(f"rq_dashboard.web has no {name}: this version cannot be read")
        setattr(module, name, repaired)
    module.config.serializer = ShowingSerializer
    return module


def _redis_of_request() -> Redis:
    found: Redis = request.environ[REDIS]
    return found


def _request_for(path: str, root: str) -> dict[str, Any]:
    """The environment of a GET of this path, below this address, as WSGI has it."""
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": unquote_to_bytes(root).decode("latin-1"),
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
