"""Starts child processes of a command, supervises them and ends them."""
