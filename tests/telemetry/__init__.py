"""Tests of what a host's trackers and scrapers are told."""
