"""Tells other systems what happens: metrics for Prometheus."""
