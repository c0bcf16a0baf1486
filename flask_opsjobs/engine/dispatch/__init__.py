"""Hands due jobs to RQ."""
