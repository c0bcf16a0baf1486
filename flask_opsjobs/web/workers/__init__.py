"""Serves the page of workers."""
