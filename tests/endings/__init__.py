"""Tests of how jobs end."""
