"""Tells the host's error tracker and tracer of enqueued jobs and of attempts. Their errors cost no job."""

from __future__ import annotations

import atexit
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import signals
from ..host import (
    ClaimedJob,
    Connect,
    Host,
    Sending,
    TraceColumns,
    WatchedAttempt,
    find_sentry,
    find_tracer_provider,
)
from . import sentry, tracing
from .report_thread import ReportThread
from .sentry import EmptyScopes, SentryScope
from .tracing import AttemptSpan, SendSpan

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_log = logging.getLogger("flask_opsjobs.telemetry")


class HostTelemetry:
    """What the host has of `sentry_sdk` and OpenTelemetry. It is looked up anew for each job."""

    def __init__(self, report: str) -> None:
        """`report` is OPSJOBS_SENTRY: which failures Sentry is told of."""
        self.report = report
        self.thread = ReportThread()
        self._is_of_jobs_only = False
        self._empty_scopes: EmptyScopes | None = None
        self._context = contextvars.Context()

    def join(self, host: Host) -> None:
        """Be the telemetry of a host: report from now on its jobs that fail without an exception."""
        # Such a failure has nothing to do with the request or the other job in which it is found: the thread
        # that reports would have their scopes of Sentry. Only that thread enters this context.
        self._context = contextvars.copy_context()
        if self.report != "off":
            signals.job_failed_without_exception.connect(self._report_failure, sender=host)

    def _report_failure(self, _host: object, *, job_id: int, **facts: Any) -> None:
        sdk = find_sentry()
        if sdk is not None:
            # A command may end right after it has rescued jobs.
            atexit.unregister(self.finish)
            atexit.register(self.finish)
            report = partial(self._context.run, sentry.report_failure, sdk, job_id, facts)
            self.thread.give(report, sentry.flush_events, sdk)

    def sending(self, task: str | None, queue: str | None) -> AbstractContextManager[Sending]:
        """Make a span around the block that enqueues jobs; what it yields has their columns for the span."""
        provider = find_tracer_provider()
        if provider is None:
            return nullcontext(Sending())
        return _sending(provider, task, queue)

    def current(self) -> TraceColumns:
        """The columns of what will be enqueued because of the current span; none without a span."""
        found: TraceColumns = {}
        if find_tracer_provider() is not None:
            with _logged():
                found = tracing.current_columns()
        return found

    def watch_jobs_only(self) -> None:
        """Note that this process runs nothing but jobs, one after the other, each in a context of its own."""
        self._is_of_jobs_only = True
        if self.report != "off" and (sdk := find_sentry()):
            with _logged():
                self._empty_scopes = EmptyScopes(sdk)

    def enter_scope(self, sdk: Any, job: ClaimedJob) -> SentryScope | None:
        """Enter a scope of Sentry for an attempt; return it when it must be left."""
        if not self._is_of_jobs_only:
            return SentryScope(sdk, job)
        if self._empty_scopes is None:
            self._empty_scopes = EmptyScopes(sdk)
        self._empty_scopes.begin(job)
        return None

    def attempt(self, job: ClaimedJob, worker: str) -> WatchedAttempt:
        """A block around an attempt of a job by a worker."""
        provider = find_tracer_provider()
        if self._empty_scopes is not None:
            sdk = self._empty_scopes.sdk
        else:
            sdk = find_sentry() if self.report != "off" else None
        if sdk is None and provider is None:
            return _UNWATCHED
        return AttemptTelemetry(self, sdk, provider, job, worker)

    def finish(self) -> None:
        """Send what is left before this process ends, for at most 2 s."""
        if (sdk := find_sentry()) and not self._has_nothing_of_sentry():
            self.thread.give(None, sentry.flush_events, sdk)
        if provider := find_tracer_provider():
            self.thread.give(None, tracing.flush_spans, provider)
        self.thread.wait()

    def _has_nothing_of_sentry(self) -> bool:
        """Return whether no job reported anything, and no other thread runs: Sentry sends all else in one."""
        has_events = self._empty_scopes is not None and self._empty_scopes.has_events
        return self._is_of_jobs_only and not has_events and threading.active_count() == 1


@contextmanager
def _sending(provider: TracerProvider, task: str | None, queue: str | None) -> Iterator[Sending]:
    sent, span, error = Sending(), None, None
    with _logged():
        span = SendSpan(provider, task, queue)
        sent.columns = span.columns
    try:
        yield sent
    except BaseException as raised:
        error = tracing.name_of(raised)
        raise
    finally:
        if span is not None:
            with _logged():
                span.end(sent, error)


class AttemptTelemetry:
    """An attempt in this process, with its scope of Sentry and its span, as far as the host has these."""

    def __init__(
        self,
        host: HostTelemetry,
        sdk: Any | None,
        provider: TracerProvider | None,
        job: ClaimedJob,
        worker: str,
    ) -> None:
        self._host = host
        self._sdk, self._provider = sdk, provider
        self._job, self._worker = job, worker
        self._scope: SentryScope | None = None
        self._span: AttemptSpan | None = None

    def __enter__(self) -> AttemptTelemetry:
        try:
            if self._sdk is not None:
                self._scope = self._host.enter_scope(self._sdk, self._job)
            if self._provider is not None:
                self._span = AttemptSpan(self._provider, self._job, self._worker)
        except Exception as raised:
            _log_failure(raised)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for entered in (self._span, self._scope):
            if entered is not None:
                with _logged():
                    entered.leave()

    def tell(self, outcome: str, error: BaseException | None, connect: Connect | None) -> None:
        """Tell, inside the block, how the attempt ended. Its outcome has been sent: this may take 2 s.

        `error` is what made it fail, and `connect` lends a connection.
        """
        thread = self._host.thread
        report = None if error is None else self._make_report(outcome, error)
        if report is not None:
            thread.give(report, sentry.flush_events, self._sdk)
        if self._span is not None:
            with _logged():
                self._span.tell(outcome, error, connect)
            thread.give(self._span.end, tracing.flush_spans, self._provider)
        if report is not None:
            thread.wait()

    def _make_report(self, outcome: str, error: BaseException) -> Callable[[], None] | None:
        """Make what reports an error to Sentry; None when it is not told of this attempt."""
        is_final = outcome == "discarded" or self._job.attempt >= self._job.max_attempts
        if self._sdk is None or not (is_final or self._host.report == "every"):
            return None
        return sentry.make_report(self._sdk, error)


class _Unwatched:
    """An attempt of which nobody is told, at no cost: the host has neither an error tracker nor a tracer."""

    def __enter__(self) -> _Unwatched:
        return self

    def __exit__(self, *_: object) -> None: ...

    def tell(
        self, _outcome: str, _error: BaseException | None, _connect: Connect | None
    ) -> None: ...


_UNWATCHED = _Unwatched()


@contextmanager
def _logged() -> Iterator[Any]:
    """A block of a tracker's code, whose error is logged and changes nothing."""
    try:
        yield
    except Exception as error:
        _log_failure(error)


def _log_failure(error: Exception) -> None:
    _log.warning("telemetry failed: %s", type(error).__name__)
