"""Serves the list of failures, and the page of one failure."""
