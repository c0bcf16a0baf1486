"""Serves metrics to Prometheus at `…/metrics`, to whoever knows the token. Needs the extra `prometheus`."""

from __future__ import annotations

import hmac

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST

from ..host import Host
from .prometheus import PrometheusCollector, exposition

_READS = ("GET", "HEAD")
_METHODS = (*_READS, "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def make_metrics_blueprint(host: Host, token: str) -> Blueprint:
    """A blueprint `opsjobs_metrics` with one URL. Without the token each method answers 401."""
    blueprint = Blueprint("opsjobs_metrics", __name__)
    collector = PrometheusCollector(host)
    wanted = token.encode()

    # Flask would answer OPTIONS before the token is looked at.
    @blueprint.route("/metrics", methods=_METHODS, provide_automatic_options=False)
    def metrics() -> Response:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        is_same = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted)
        if scheme.lower() != "bearer" or not is_same:
            return Response(status=401, headers={**_HEADERS, "WWW-Authenticate": "Bearer"})
        if request.method not in _READS:
            return Response(status=405, headers={**_HEADERS, "Allow": ", ".join(_READS)})
        return Response(exposition(collector), content_type=CONTENT_TYPE_LATEST, headers=_HEADERS)

    return blueprint
