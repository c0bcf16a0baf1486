"""Reads the numbers of the first page, and decides the headline above them."""
