"""Serves the pages of Lifeline: incidents, and what watches for them."""
