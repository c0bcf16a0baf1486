"""The limiters, their partitions and simulations."""
