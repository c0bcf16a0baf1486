"""Serves the page of one job."""
