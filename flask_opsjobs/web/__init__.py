"""Serves the pages at `/ops/jobs`: one blueprint, read-only but for the few actions in `urls`."""

from .app.blueprint import make_blueprint

__all__ = ["make_blueprint"]
