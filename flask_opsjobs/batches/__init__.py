"""Counts many jobs as one: a batch is opened, filled, closed, and ends with its last member."""
