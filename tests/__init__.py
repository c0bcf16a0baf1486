"""The tests; their paths mirror the package."""
