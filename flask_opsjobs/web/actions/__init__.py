"""Serves the pages of an action: its preview and its outcome."""
