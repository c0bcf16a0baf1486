"""The limited tasks that commands on limiters read."""

from tests.limits.conftest import commit, limited  # noqa: F401 - fixtures
