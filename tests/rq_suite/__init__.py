"""RQ's own tests of its worker, run on ours."""
