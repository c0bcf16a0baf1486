"""Reads the numbers of the overview page, and decides the headline above them."""
