"""Tests of what operators do, through the doorway."""
