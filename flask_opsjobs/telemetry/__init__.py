"""Tells other systems of jobs: metrics for Prometheus, errors for Sentry, spans for OpenTelemetry."""
