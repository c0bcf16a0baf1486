"""Sets the headers of our responses: a strict content security policy, and `no-store`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from flask import Response, g
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_CSP = {
    "default-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}


_FIXED = {
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _Ours(Response):
    """A response that sets our headers last, because the host's `after_request` runs after a blueprint's.

    It must not be cached unless its view says otherwise: a cached copy is shown without asking the policy.
    """

    opsjobs_cache_control: str

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """The headers as they are sent. A `frame-ancestors` that the host has set is kept."""
        headers = super().get_wsgi_headers(environ)
        policy = dict(_CSP)
        for directive in headers.get("Content-Security-Policy", "").split(";"):
            name, _, value = directive.strip().partition(" ")
            if name == "frame-ancestors":
                policy[name] = value.strip()
        headers["Content-Security-Policy"] = "; ".join(f"{name} {policy[name]}" for name in policy)
        headers["Cache-Control"] = self.opsjobs_cache_control
        for name, value in _FIXED.items():
            headers[name] = value
        return headers


@cache
def _ours(kind: type[Response]) -> type[Response]:
    return type(kind.__name__, (_Ours, kind), {})


def add_headers(response: Response) -> Response:
    """The response with our headers. It remains an instance of the host's own response class."""
    response.__class__ = _ours(type(response))  # type: ignore[arg-type]
    response.opsjobs_cache_control = g.get("opsjobs_cache_control", "no-store")  # type: ignore[attr-defined]
    return response
