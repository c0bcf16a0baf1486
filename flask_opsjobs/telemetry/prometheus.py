"""Makes Prometheus' families of metrics from the numbers in Postgres. Needs the extra `prometheus`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError
from typing_extensions import override

from ..core.db import connect_soon, forget_values, is_away, say_cause
from ..core.reading import PAGE_PLANS, read_snapshot
from ..errors import OpsJobsError, SchemaAhead, SchemaBehind
from ..host import Host
from . import metrics
from .exposition import write
from .queries import Durations, Series, Values, find_values

_log = logging.getLogger("flask_opsjobs.metrics")
# A scrape that has no answer of Postgres by then says so. It is below 2 s with what follows.
_MOST_SECONDS = 1.8
_STATEMENT_SECONDS = 1.5
_FAMILIES: dict[str, Any] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
    "summary": SummaryMetricFamily,
}
_SCRAPES = "rq_request_processing_seconds"


class Unanswered(OpsJobsError):
    """Postgres did not answer a scrape in time."""


class PrometheusCollector(Collector):  # type: ignore[misc]
    """Reads all metrics at each scrape. Only scrapes are counted, those of this process. Safe in threads."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._scrapes = 0
        self._seconds = 0.0
        self._said: str | None = None

    def describe(self) -> Iterator[Metric]:
        """Return all families without values: a registry that is given this collector asks no database."""
        for metric in metrics.METRICS:
            yield _FAMILIES[metric.kind](metric.name, metric.meaning, labels=metric.labels)

    @override
    def collect(self) -> Iterator[Metric]:
        """Return all families, or only `opsjobs_up` 0 when Postgres does not answer within 2 s."""
        for metric, series in self.read():
            yield _family(metric, series)

    def read(self) -> list[tuple[metrics.Metric, Series]]:
        """Read all metrics with their values, in their order; when Postgres does not answer, only some."""
        began = time.perf_counter()
        values = self._read_in_time()
        with self._lock:
            self._scrapes += 1
            self._seconds += time.perf_counter() - began
            scrapes = Durations((self._scrapes,), self._seconds)
        own: Values = {"opsjobs_up": {(): float(values is not None)}, _SCRAPES: {(): scrapes}}
        return [
            (metric, own.get(metric.name) or (values or {}).get(metric.name, {}))
            for metric in metrics.METRICS
            if values is not None or metric.name in own
        ]

    def _read_in_time(self) -> Values | None:
        """Read in another thread: libpq waits 2 s at least for a server that is frozen."""
        answers: SimpleQueue[Values | Exception] = SimpleQueue()
        threading.Thread(
            target=self._read, args=(answers,), name="opsjobs-metrics", daemon=True
        ).start()
        try:
            answer = answers.get(timeout=_MOST_SECONDS)
        except Empty:
            answer = Unanswered(f"no answer within {_MOST_SECONDS:g} s")
        if not isinstance(answer, Exception):
            self._say(None)
            return answer
        if not _is_expected(answer):
            raise answer
        self._say(say_cause(answer) if isinstance(answer, DBAPIError) else str(answer))
        return None

    def _read(self, answers: SimpleQueue[Values | Exception]) -> None:
        host = self._host
        try:
            with host.postgres.asking(is_away, lambda: Unanswered("it is away")):
                connection = connect_soon(host.pages)
                with read_snapshot(connection, _STATEMENT_SECONDS, PAGE_PLANS) as read:
                    host.require_schema(read.session.connection())
                    values = find_values(read.session, read.now, host.settings)
        except Exception as error:
            forget_values(error)
            answers.put(error)
        else:
            answers.put(values)

    def _say(self, why: str | None) -> None:
        """Log when Postgres begins not to answer, and when it answers again."""
        with self._lock:
            before, self._said = self._said, why
        if why is not None and before is None:
            _log.warning("metrics say opsjobs_up 0: %s", why)
        elif why is None and before is not None:
            _log.warning("metrics are complete again")


def exposition(collector: PrometheusCollector) -> bytes:
    """Return the text that Prometheus reads."""
    return write(collector.read())


def _is_expected(error: Exception) -> bool:
    """Whether the error means that Postgres cannot be asked now. Any other one is a bug, and is raised."""
    expected = (Unanswered, SchemaBehind, SchemaAhead, TimeoutError, OperationalError)
    return isinstance(error, expected) or is_away(error)


def _family(metric: metrics.Metric, series: Series) -> Metric:
    family: Any = _FAMILIES[metric.kind](metric.name, metric.meaning, labels=metric.labels)
    for labels, value in series.items():
        if not isinstance(value, Durations):
            family.add_metric(labels, value)
        elif metric.kind == "histogram":
            family.add_metric(labels, list(value.buckets().items()), value.seconds)
        else:
            family.add_metric(labels, sum(value.counts), value.seconds)
    return family
