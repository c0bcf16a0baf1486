"""The engine: the only folder that knows RQ and Redis."""
