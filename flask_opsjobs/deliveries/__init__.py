"""Defines what an operator may do with a delivery, the RQ job that hands one of our jobs to a worker."""
