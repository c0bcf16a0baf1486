"""Shows what the doctor finds."""
