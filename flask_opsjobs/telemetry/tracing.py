"""Makes spans of OpenTelemetry for enqueued jobs and for attempts, when the host has a tracer provider.

Imports nothing of OpenTelemetry before the host has: a host that makes spans has imported the API.
"""

from __future__ import annotations

import os
import socket
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..core.db import Connection
from ..host import ClaimedJob, Connect, Sending, TraceColumns
from ..jobs.perform.current_queries import find_traced_past

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

FLUSH_MILLISECONDS = 2000
# W3C Trace Context: who stores a longer tracestate may drop it.
_LONGEST_STATE = 512


@lru_cache(maxsize=1)
def _tracer_of(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("flask_opsjobs")


class SendSpan:
    """The span `send <queue>` around what enqueues jobs, and current meanwhile."""

    def __init__(self, provider: TracerProvider, task: str | None, queue: str | None) -> None:
        """`queue` is None when the jobs go to several queues, and `task` when they are of several tasks."""
        from opentelemetry import context
        from opentelemetry.trace import SpanKind, set_span_in_context

        attributes = _attributes("send", task, queue, f"{socket.gethostname()}-{os.getpid()}")
        self._span = _tracer_of(provider).start_span(
            f"send {queue}" if queue else "send", kind=SpanKind.PRODUCER, attributes=attributes
        )
        self.columns = _columns_of(self._span)
        self._token = context.attach(set_span_in_context(self._span))

    def end(self, sent: Sending, error: str | None) -> None:
        """End the span. `error` is the name of the error with which the jobs were not enqueued."""
        from opentelemetry import context

        context.detach(self._token)
        if sent.job_id is not None:
            self._span.set_attribute("messaging.message.id", str(sent.job_id))
        if sent.count is not None:
            self._span.set_attribute("messaging.batch.message_count", sent.count)
        for link in dict.fromkeys(sent.because_of):
            _add_link(self._span, *link)
        if error is not None:
            _set_error(self._span, error)
        self._span.end()


def current_columns() -> TraceColumns:
    """The columns of a job that keep the context of the current span; none without a recorded one."""
    from opentelemetry.trace import get_current_span

    return _columns_of(get_current_span())


def _columns_of(span: Span) -> TraceColumns:
    """The columns of a job that keep the context of a span; none when the span is not recorded."""
    if not span.is_recording():
        return {}
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
    state = carrier.get("tracestate")
    fits = state is not None and len(state) <= _LONGEST_STATE
    return {"traceparent": carrier["traceparent"], "tracestate": state if fits else None}


class AttemptSpan:
    """The span `process <queue>` of an attempt: the root of a new trace, and current in the function."""

    def __init__(self, provider: TracerProvider, job: ClaimedJob, worker: str) -> None:
        from opentelemetry import context
        from opentelemetry.trace import SpanKind, set_span_in_context

        attributes = _attributes("process", job.task, job.queue, worker)
        attributes |= {"messaging.message.id": str(job.id), "opsjobs.attempt": job.attempt}
        self._job = job
        self._span = _tracer_of(provider).start_span(
            f"process {job.queue}",
            context=context.Context(),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
        )
        self._token = context.attach(set_span_in_context(self._span, context.Context()))

    def leave(self) -> None:
        """Make the span before this one the current one again."""
        from opentelemetry import context

        context.detach(self._token)

    def tell(self, outcome: str, error: BaseException | None, connect: Connect | None) -> None:
        """Note how the attempt ended, where its job was enqueued, and of what the attempt before it died."""
        self._ended_at = time.time_ns()
        span = self._span
        if not span.is_recording():
            return
        span.set_attribute("opsjobs.outcome", outcome)
        if error is not None:
            _set_error(span, name_of(error))
        elif outcome == "not_run":
            _set_error(span, outcome)
        if connect is not None:
            with connect() as connection:
                self._tell_past(connection)

    def _tell_past(self, connection: Connection) -> None:
        past = find_traced_past(connection, self._job.id, self._job.dispatch_no)
        if past is None:
            return
        if past.traceparent is not None:
            _add_link(self._span, past.traceparent, past.tracestate)
        if past.death is not None:
            prefix = "opsjobs.previous_attempt."
            self._span.set_attribute(prefix + "death", past.death)
            self._span.set_attribute(prefix + "cause_of_death", past.cause_of_death or "")

    def end(self) -> None:
        """End the span at the time of `tell`. A host's processor may export it here, and hang."""
        self._span.end(self._ended_at)


def flush_spans(provider: TracerProvider) -> None:
    """Let a provider of the SDK export what is not yet exported. May hang."""
    force: Any = getattr(provider, "force_flush", None)
    if force is not None:
        force(FLUSH_MILLISECONDS)


def _attributes(
    operation: str, task: str | None, queue: str | None, client: str
) -> dict[str, str | int]:
    """The attributes of OpenTelemetry's conventions for messaging, 1.44."""
    found = {
        "messaging.system": "opsjobs",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.client.id": client,
        "messaging.destination.name": queue,
        "opsjobs.task": task,
    }
    return {name: value for name, value in found.items() if value is not None}


def _add_link(span: Span, traceparent: str, tracestate: str | None) -> None:
    """Link to the span in which a job was enqueued."""
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": traceparent, "tracestate": tracestate or ""}
    sent = TraceContextTextMapPropagator().extract(carrier, context.Context())
    span.add_link(trace.get_current_span(sent).get_span_context())


def _set_error(span: Span, name: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", name)
    span.set_status(StatusCode.ERROR)


def name_of(error: BaseException) -> str:
    """The name of an error's type, with its module."""
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
