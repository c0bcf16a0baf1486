"""Serves the audit: every decision, and its place in the chain."""
