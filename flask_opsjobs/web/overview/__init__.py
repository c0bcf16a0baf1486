"""Serves the overview, the first page."""
