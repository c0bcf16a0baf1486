"""The example host, which the demo runs, on the test's database and Redis."""

from tests.host.conftest import app, db, shop, visitor  # noqa: F401 - fixtures
