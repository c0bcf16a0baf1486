"""What all folders use."""
