"""Serves the pages of batches."""
