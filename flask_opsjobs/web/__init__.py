"""Serves the pages at `/ops/jobs`: one blueprint, read-only but for the few actions in `urls`.

A second one serves RQ's own view below it, where rq-dashboard is installed.
"""

from .app.blueprint import make_blueprint, make_bridge_blueprint

__all__ = ["make_blueprint", "make_bridge_blueprint"]
