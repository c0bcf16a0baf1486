"""Programs that developers run through make: the map, the bench, the screenshot."""
