"""Draws workflows: the graph of a run and its timeline."""
