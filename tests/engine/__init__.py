"""Tests of the engine: dispatch, claim, record, and the worker processes."""
