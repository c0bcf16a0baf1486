"""Tests the shop with the fixtures of flask_opsjobs, as a host's own suite does."""
