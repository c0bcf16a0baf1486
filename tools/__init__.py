"""Holds what developers run through make: the demo, the benches, the pictures of pages, the map, the walk."""
