"""Serves the pages of limiters, of their partitions and of simulations."""
