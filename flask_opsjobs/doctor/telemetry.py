"""Checks that the error tracker of the app hears of failed jobs, and that its spans leave forked children."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from .. import signals
from ..host import find_sentry, find_tracer_provider
from .check import WARNING, CheckAnswer, CheckContext, DoctorCheck, ok, skipped, warning

# Trackers that hear of a failed job only by a receiver of the host.
_OTHERS = {
    "bugsnag": "Bugsnag",
    "honeybadger": "Honeybadger",
    "raygun4py": "Raygun",
    "rollbar": "Rollbar",
}
# The library gRPC does not survive a fork when it was used before.
_GRPC = "opentelemetry.exporter.otlp.proto.grpc."


def _error_tracker(context: CheckContext) -> CheckAnswer:
    is_heard = bool(signals.attempt_raised.receivers)
    if find_sentry() is not None and context.host.settings.sentry != "off":
        return ok("Sentry is told of failed jobs.")
    names = [name for module, name in _OTHERS.items() if module in sys.modules]
    if find_sentry() is not None:
        names.append("Sentry")
    if not names:
        return skipped("The app has initialised no error tracker that we know.")
    if is_heard:
        return ok("A receiver of the event attempt_raised is told of failed jobs.")
    return warning(
        f"{names[-1]} is not told of failed jobs.",
        "OPSJOBS_SENTRY is off, and no receiver is connected to the event attempt_raised."
        if names[-1] == "Sentry"
        else "Connect a receiver to the event attempt_raised, which reports its exception.",
    )


def _exporter(context: CheckContext) -> CheckAnswer:
    provider = find_tracer_provider()
    if provider is None:
        return skipped("The app has set no tracer provider.")
    if context.host.child_hooks.started is None and any(
        type(each).__module__.startswith(_GRPC) for each in _exporters_of(provider)
    ):
        return warning(
            "Spans are exported over gRPC, which may hang in a process that was forked.",
            "A worker forks its children after the app has made the exporter. Export over HTTP, or make the "
            "provider in child_started.",
        )
    return ok("No exporter of spans is known to fail after a fork.")


def _exporters_of(provider: Any) -> Iterator[Any]:
    """The exporters of a provider of the SDK; none of another one."""
    processor = getattr(provider, "_active_span_processor", None)
    for each in getattr(processor, "_span_processors", ()):
        exporter = getattr(each, "span_exporter", None)
        if exporter is not None:
            yield exporter


CHECKS = (
    DoctorCheck(
        "telemetry.error_tracker",
        (WARNING,),
        "the app's error tracker hears of failed jobs",
        _error_tracker,
    ),
    DoctorCheck(
        "telemetry.exporter",
        (WARNING,),
        "the exporter of spans survives the fork of a worker's child",
        _exporter,
    ),
)
