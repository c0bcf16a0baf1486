"""Serves metrics to Prometheus on an address of their own, for `flask opsjobs metrics --serve`."""

from __future__ import annotations

import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST
from typing_extensions import override

from .prometheus import PrometheusCollector, exposition


class PrometheusServer(ThreadingHTTPServer):
    """Answers each GET of `/metrics`, also several at once. Raises `OSError` when it cannot listen."""

    daemon_threads = True

    def __init__(self, collector: PrometheusCollector, address: str, port: int) -> None:
        self.collector = collector
        if ":" in address:
            self.address_family = socket.AF_INET6
        super().__init__((address, port), _Answer)


class _Answer(BaseHTTPRequestHandler):
    server: PrometheusServer

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        text = exposition(self.server.collector)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each scrape."""
