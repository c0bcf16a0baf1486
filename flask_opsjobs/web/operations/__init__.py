"""Serves the pages of operations."""
