"""The headers of every response of ours: a strict content security policy, and no copies kept."""

from __future__ import annotations

from flask import Response

_CSP = {
    "default-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}


def add(response: Response) -> Response:
    """Add them; where the host has set its own, only who may frame the page is left to it."""
    policy = dict(_CSP)
    theirs = response.headers.get("Content-Security-Policy", "")
    for directive in theirs.split(";"):
        name, _, value = directive.strip().partition(" ")
        if name == "frame-ancestors":
            policy[name] = value.strip()
    csp = "; ".join(f"{name} {value}" for name, value in policy.items())
    response.headers["Content-Security-Policy"] = csp
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    return response
