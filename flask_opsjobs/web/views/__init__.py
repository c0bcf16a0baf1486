"""Holds the views, one module per entry of the navigation."""
