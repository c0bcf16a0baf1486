"""Watches workers and loops: rescues the jobs of dead workers, checks integrity, and deletes old rows."""
