"""Calls the function of a job, and turns however that ends into an outcome."""
