"""Dispatches due jobs to RQ."""
