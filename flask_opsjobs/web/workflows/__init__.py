"""Shows workflows: the list of runs, and one run with its graph, its timeline and its steps."""
