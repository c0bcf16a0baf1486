"""The host that enqueues in the test's process, while its workers are processes of their own."""

from tests.engine.conftest import site

__all__ = ["site"]
