"""Provides what all folders use: connections, statements, signing, words and visible text."""
