"""Declares the `OPSJOBS_*` settings: the meaning, the default and the allowed values of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigError
from .failures.lifecycle import NEXT, THIS

PREFIX = "OPSJOBS_"
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,50}")
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
_REDIS_URL = (
    "begins with redis://, rediss:// or unix://; characters of a password such as / and @ are written as "
    "%2F and %40"
)
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True)
class Setting:
    """One configuration key.

    `parse` returns the value to use, or raises `ValueError` with what is allowed.
    """

    key: str
    default: Any
    parse: Callable[[Any], Any]
    meaning: str
    # No error shows its value.
    is_secret: bool = False


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a non-empty string")
    return value


def _token(value: Any) -> str | None:
    if value is None:
        return None
    is_token = isinstance(value, str) and re.fullmatch(r"[!-~]{16,500}", value)
    if not is_token:
        raise ValueError("None, or 16 to 500 printable ASCII characters without spaces")
    return str(value)


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _version(value: Any) -> str | None:
    if value is None:
        return None
    # Flask reads a variable of the environment as JSON: a version of digits only is a number then.
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    is_text = isinstance(text, str) and text.isprintable() and text == text.strip()
    if not is_text or not 1 <= len(text) <= 200:
        raise ValueError(
            "None, or printable text of 1 to 200 characters without spaces around it; one that looks like a "
            "number needs quotes in the environment: FLASK_OPSJOBS_VERSION='\"2026.11\"'"
        )
    if text in (THIS, NEXT):
        raise ValueError(
            "another word, because failures are resolved in `this` deploy or in the `next` one"
        )
    return str(text)


def _prefix(value: Any) -> str:
    # Flask reads `<` as a parameter, and a browser resolves `..` in an address.
    is_path = isinstance(value, str) and _PATH.fullmatch(value) is not None
    if not is_path or {".", ".."}.intersection(value.split("/")):
        raise ValueError(
            "a path such as '/ops/jobs' of letters, digits, '-', '_', '.' and '~', with a leading and "
            "without a trailing slash, and without the segments '.' and '..'"
        )
    return str(value)


def read_host_address(value: Any) -> str | None:
    """A path or an address of the host's; raises `ValueError` with what is allowed."""
    if value is None:
        return None
    is_path = isinstance(value, str) and value.startswith("/") and not value.startswith("//")
    is_url = isinstance(value, str) and value.startswith(("https://", "http://"))
    if not (is_path or is_url) or not value.isprintable() or " " in value:
        raise ValueError("None, a path such as '/sign-in', or an address that begins with https://")
    return str(value)


def _runbooks(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError("a dict from classes of incidents to addresses")
    found = {}
    for class_, address in value.items():
        if not isinstance(class_, str) or not re.fullmatch(r"[a-z_]+", class_) or address is None:
            raise ValueError(
                "a dict from classes of incidents to addresses: {'worker_missing': 'https://…'}"
            )
        found[class_] = str(read_host_address(address))
    return found


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def _number(low: float, high: float) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise ValueError(f"a number from {low:g} to {high:g}")
        return value

    return parse


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return parse


def _is_redis_url(value: Any) -> bool:
    if not isinstance(value, str) or not value.startswith(_REDIS_SCHEMES):
        return False
    try:
        return urlsplit(value).port != 0
    except ValueError:  # such as a password with a slash
        return False


def _redis_url(value: Any) -> str | None:
    if value is not None and not _is_redis_url(value):
        raise ValueError(f"None, or a URL that {_REDIS_URL}")
    return None if value is None else str(value)


def _redis_urls(value: Any) -> Mapping[str, str]:
    if (
        not isinstance(value, Mapping)
        or not all(isinstance(label, str) and _LABEL.fullmatch(label) for label in value)
        or "default" in value
        or not all(map(_is_redis_url, value.values()))
    ):
        raise ValueError(
            f"a dict of labels, such as 'reports', to URLs of which each {_REDIS_URL}. "
            "A label has at most 50 letters, digits, '-', '_' and '.', and is not 'default', which names the "
            "Redis of the queue `default`"
        )
    return MappingProxyType(dict(value))


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(each, str) and each for each in value
    ):
        raise ValueError("a list of non-empty strings")
    return tuple(value)


def _choice(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError("one of " + ", ".join(repr(word) for word in words))
        return str(value)

    return parse


SETTINGS: tuple[Setting, ...] = (
    Setting("URL_PREFIX", "/ops/jobs", _prefix, "Where the pages are mounted."),
    Setting(
        "BIND",
        None,
        _optional_text,
        "The Flask-SQLAlchemy bind of the database that stores the jobs. None: the default bind.",
    ),
    Setting(
        "REDIS_URL",
        None,
        _redis_url,
        "The URL of Redis or Valkey. None: the host's Flask-RQ connection, else redis://localhost:6379/0.",
        is_secret=True,
    ),
    Setting(
        "ENVIRONMENT",
        "development",
        _text,
        "The name of this environment, such as production. Every page shows it in a badge.",
    ),
    Setting(
        "VERSION",
        None,
        _version,
        "The version of your application, such as a release or a commit. Each worker stores it, so that a "
        "death can be told from a deploy.",
    ),
    Setting(
        "SIGN_IN_URL",
        None,
        read_host_address,
        "The page on which people sign in to the application. "
        "Our pages link to it and set `next` to their own address.",
    ),
    Setting(
        "HELP_URL",
        None,
        read_host_address,
        "A page of your own, such as a runbook. Our help links to it.",
    ),
    Setting(
        "RUNBOOKS",
        {},
        _runbooks,
        "Your runbooks, by class of incident: `{'worker_missing': 'https://wiki/missing'}`. The page of an "
        "incident links to the one of its class.",
    ),
    Setting(
        "DOCTOR_SILENCE",
        (),
        _texts,
        "Checks of the doctor that do not count, by id: `['config.secret_key']`. The doctor says that they "
        "are silenced.",
    ),
    Setting(
        "ESCALATE_FROM",
        "critical",
        _choice("critical", "warning", "notice"),
        "The least severity of incidents that the escalation policy is told of.",
    ),
    Setting(
        "APP_ROLE",
        None,
        _optional_text,
        "The database role of the running application. Migrations grant it access to our tables.",
    ),
    Setting(
        "DISPATCH",
        True,
        _flag,
        "Whether jobs are dispatched to RQ right after the commit. If not, only the dispatch loop does it. "
        "Off under TESTING.",
    ),
    Setting(
        "PREFETCH",
        None,
        lambda value: None if value is None else _whole(1, 1_000_000)(value),
        "How many jobs of one queue may be in Redis. None: two for each child of live workers, at least 2.",
    ),
    Setting(
        "MAX_ARGS_BYTES",
        1_000_000,
        _whole(1_000, 100_000_000),
        "The largest arguments of one job, as JSON.",
    ),
    Setting(
        "MAX_OUTPUT_BYTES",
        256_000,
        _whole(0, 100_000_000),
        "The largest output of one job that is kept, as JSON.",
    ),
    Setting(
        "LOG_TAIL_BYTES",
        16_000,
        _whole(0, 1_000_000),
        "How much of the end of an attempt's log is kept.",
    ),
    Setting("HEARTBEAT_SECONDS", 10, _number(0.2, 60), "How often a worker sends a heartbeat."),
    Setting(
        "LATE_SECONDS",
        45,
        _number(1, 3600),
        "A worker without a new heartbeat for this long is late.",
    ),
    Setting(
        "MISSING_SECONDS",
        120,
        _number(2, 86400),
        "A worker without a new heartbeat for this long is missing, and its jobs are rescued.",
    ),
    Setting(
        "RESCUE",
        "automatic",
        _choice("automatic", "manual"),
        "Whether the jobs of a missing worker are rescued automatically or manually.",
    ),
    Setting(
        "RECALL_SECONDS",
        5,
        _number(0.2, 3600),
        "How long a dispatched job may be absent from Redis before it is recalled.",
    ),
    Setting(
        "RESERVE_SECONDS",
        0.1,
        _number(0, 60),
        "How many seconds of expected work a worker reserves ahead for each of its children.",
    ),
    Setting(
        "RESERVE_MOST",
        400,
        _whole(1, 800),
        "How many jobs a worker may have reserved. One for each of its children is always allowed.",
    ),
    Setting(
        "ADOPT",
        True,
        _flag,
        "Whether plain RQ jobs get rows, so that they are shown and kept. If not, the adopt loop does "
        "not run.",
    ),
    Setting(
        "RQ_REDIS_URLS",
        {},
        _redis_urls,
        'Further Redis servers whose plain RQ jobs are adopted, by a label: `{"reports": "redis://…"}`.',
        is_secret=True,
    ),
    Setting(
        "BRIDGE",
        "auto",
        _choice("auto", "off"),
        "Whether RQ's own view is shown below our pages, at `/rq`. `auto`: when rq-dashboard is installed.",
    ),
    Setting(
        "MAY_STAY",
        ("sentry", "otel", "ddtrace", "datadog", "statsd"),
        _texts,
        "Threads that may outlive the job that started them, by parts of their names, in any case. "
        "A job that leaves another thread behind ends its child process.",
    ),
    Setting(
        "SENTRY",
        "final",
        _choice("final", "every", "off"),
        "Which failed attempts Sentry is told of, when the application has initialised it: the last one of a "
        "job, every one, or none.",
    ),
    Setting("KEEP_FINISHED_DAYS", 14, _number(0, 36500), "How long finished jobs are kept."),
    Setting("KEEP_CANCELED_DAYS", 14, _number(0, 36500), "How long canceled jobs are kept."),
    Setting("KEEP_FAILED_DAYS", 90, _number(0, 36500), "How long failed jobs are kept."),
    Setting(
        "KEEP_OUTPUT_DAYS",
        7,
        _number(0, 36500),
        "How long outputs are kept, if the job itself is kept longer.",
    ),
    Setting(
        "KEEP_SLOTS_DAYS",
        400,
        _number(0, 36500),
        "How long the run history of cron entries is kept.",
    ),
    Setting(
        "KEEP_SIGNALS_DAYS",
        30,
        _number(0, 36500),
        "How long signals of workflows are kept, and how long a wait that has ended makes a signal late.",
    ),
    Setting(
        "KEEP_INCIDENTS_DAYS",
        90,
        _number(0, 36500),
        "How long incidents are kept after their end, and evidence after it was last seen.",
    ),
    Setting(
        "KEEP_OPERATIONS_DAYS",
        90,
        _number(0, 36500),
        "How long operations are kept after their end, with the receipts of their jobs.",
    ),
    Setting(
        "KEEP_ESCALATIONS_DAYS",
        90,
        _number(0, 36500),
        "How long escalations are kept after their end, if their incident is kept.",
    ),
    Setting(
        "PAGE_TIMEOUT_SECONDS",
        5,
        _number(0.1, 600),
        "The statement timeout of each query of a page.",
    ),
    Setting(
        "PAGE_CONNECTIONS",
        5,
        _whole(1, 100),
        "How many connections to Postgres the pages of one process may use, "
        "in addition to the application's own pool.",
    ),
    Setting(
        "METRICS_TOKEN",
        None,
        _token,
        "The bearer token with which Prometheus reads `/metrics` below the prefix. None: no such URL.",
        is_secret=True,
    ),
)


@dataclass(frozen=True)
class Settings:
    """Holds the values of the settings, each under its name in lower case: `settings.heartbeat_seconds`."""

    url_prefix: str
    bind: str | None
    redis_url: str | None
    environment: str
    version: str | None
    sign_in_url: str | None
    help_url: str | None
    runbooks: Mapping[str, str]
    doctor_silence: tuple[str, ...]
    escalate_from: str
    app_role: str | None
    dispatch: bool
    prefetch: int | None
    max_args_bytes: int
    max_output_bytes: int
    log_tail_bytes: int
    heartbeat_seconds: float
    late_seconds: float
    missing_seconds: float
    rescue: str
    recall_seconds: float
    reserve_seconds: float
    reserve_most: int
    adopt: bool
    rq_redis_urls: Mapping[str, str]
    bridge: str
    may_stay: tuple[str, ...]
    sentry: str
    keep_finished_days: float
    keep_canceled_days: float
    keep_failed_days: float
    keep_output_days: float
    keep_slots_days: float
    keep_signals_days: float
    keep_incidents_days: float
    keep_operations_days: float
    keep_escalations_days: float
    page_timeout_seconds: float
    page_connections: int
    metrics_token: str | None

    @property
    def loops_off(self) -> Collection[str]:
        """The names of the loops that these settings turn off: no process runs them."""
        return () if self.adopt else ("adopt",)


def _say_close(key: str) -> str:
    """Which setting an unknown key may have meant; all of them when none is close."""
    known = [setting.key for setting in SETTINGS]
    if close := get_close_matches(key, known, n=1):
        return f"did you mean {PREFIX}{close[0]}?"
    return f"known are {', '.join(PREFIX + each for each in known)}"


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Read the settings of a Flask config.

    Raises `ConfigError` with every unknown key and every wrong value.
    """
    known = {PREFIX + setting.key: setting for setting in SETTINGS}
    wrong = [
        f"{key} is not a setting of flask_opsjobs: {_say_close(key.removeprefix(PREFIX))}"
        for key in config
        if key.startswith(PREFIX) and key not in known
    ]
    values: dict[str, Any] = {}
    for key, setting in known.items():
        try:
            values[setting.key.lower()] = setting.parse(config.get(key, setting.default))
        except ValueError as allowed:
            value = "" if setting.is_secret else f" = {config[key]!r}"
            wrong.append(f"{key}{value} is not allowed: it must be {allowed}")
    if wrong:
        raise ConfigError("; ".join(wrong))
    settings = Settings(**values)
    if not settings.heartbeat_seconds < settings.late_seconds < settings.missing_seconds:
        raise ConfigError(
            "OPSJOBS_HEARTBEAT_SECONDS < OPSJOBS_LATE_SECONDS < OPSJOBS_MISSING_SECONDS must hold, got "
            f"{settings.heartbeat_seconds:g}, {settings.late_seconds:g}, {settings.missing_seconds:g}"
        )
    return settings
