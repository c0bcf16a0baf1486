"""Tests that kill, freeze and empty real servers and processes under load."""
